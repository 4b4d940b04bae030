# SPDX-License-Identifier: Apache-2.0
# Shell functions that ./run, ./test and .ci/run share. Sourced by bash with $top set to the checkout.

lock_wait_s=600

step() {
	printf '==> %s\n' "$*"
}

die() {
	printf '%s\n' "$*" >&2
	exit 1
}

# packages_of PURPOSE...: names from contrib/packages.
packages_of() {
	local purpose package rest wanted=" $* "

	while read -r purpose package rest; do
		[[ $purpose != '#'* && $wanted == *" $purpose "* ]] && printf '%s\n' "$package"
	done < "$top/contrib/packages"
	return 0
}

# Those of the packages given that are not installed.
packages_missing() {
	local package status have=' '

	while read -r package status; do
		[[ $status == installed ]] && have+="$package "
	done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2> /dev/null)
	for package; do
		[[ $have == *" $package "* ]] || printf '%s\n' "$package"
	done
}

# need_space DIRECTORY MIB WHAT
need_space() {
	local free

	free=$(df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024) }')
	[[ $free -ge $2 ]] || die "$1: $free MiB free, $3 needs $2 MiB: make room and try again"
}

# Wait until no other program holds apt's and dpkg's locks, saying whom we wait for. Run as root.
# perl-base is on every Debian; python3 may not be there yet.
apt_lock_wait() {
	$sudo perl -MFcntl -MSocket -e '
		my $seconds = shift;
		for my $path (@ARGV) {
			open(my $f, "+<", $path) or next;
			my $layout = "s s x4 q q i x4";
			my $lock = pack($layout, F_WRLCK, 0, 0, 0, 0);
			next if fcntl($f, F_SETLK, $lock);
			my $other = pack($layout, F_WRLCK, 0, 0, 0, 0);
			fcntl($f, F_GETLK, $other);
			my $pid = (unpack($layout, $other))[4];
			print "    another package program (pid $pid) is at work; waiting for it, ",
				"at most $seconds s\n";
			$SIG{ALRM} = sub { print STDERR "$path is still locked by pid $pid\n"; exit 1 };
			alarm $seconds;
			fcntl($f, F_SETLKW, $lock) or exit 1;
			alarm 0;
		}
	' "$lock_wait_s" /var/lib/dpkg/lock-frontend /var/lib/apt/lists/lock
}

apt_run() {
	apt_lock_wait || die "gave up waiting for the package lock"
	printf '    %s\n' "${sudo:+$sudo }apt-get $*"
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o "DPkg::Lock::Timeout=$lock_wait_s" \
		-o Dpkg::Use-Pty=0 "$@" < /dev/null
}

# All packages known to apt's lists?
apt_knows() {
	[[ $(apt-cache policy "$@" 2> /dev/null | grep -c 'Candidate: [^(]') -eq $# ]]
}

debian_like() {
	local ID='' ID_LIKE='' PRETTY_NAME=''

	[[ -r /etc/os-release ]] && . /etc/os-release
	system_name=${PRETTY_NAME:-this system}
	[[ " $ID $ID_LIKE " == *" debian "* ]] && command -v apt-get dpkg-query > /dev/null
}

# ensure_packages MIB PURPOSE...: install what is missing, or say exactly what to do and exit 1.
ensure_packages() {
	local space=$1 wanted missing command
	shift

	mapfile -t wanted < <(packages_of "$@")
	debian_like || die "Packages can only be installed on Debian and its relatives; on" \
		"$system_name this needs what Debian calls: ${wanted[*]}."
	mapfile -t missing < <(packages_missing "${wanted[@]}")
	[[ ${#missing[@]} -eq 0 ]] && return
	sudo=
	command=(install -y --no-install-recommends "${missing[@]}")
	printf '    missing: %s\n' "${missing[*]}"
	if [[ $EUID -ne 0 ]]; then
		sudo='sudo -n'
		if ! sudo -n true 2> /dev/null; then
			printf '%s\n' "These packages are missing and may not be installed by" \
				"$(id -un) without a password. As root, run" \
				"    apt-get ${command[*]}" "and try again." >&2
			exit 1
		fi
	fi
	need_space /usr "$space" "installing packages"
	if ! apt_knows "${missing[@]}"; then
		apt_run update || die "apt-get update failed; the lines above say why"
	elif apt_run "${command[@]}"; then
		return
	else
		printf '    the package lists may be stale\n'
		apt_run update || die "apt-get update failed; the lines above say why"
	fi
	apt_run "${command[@]}" || die "installing failed; the lines above say why"
}

# logged LOG COMMAND...: run with its output in LOG, show the end of it when it fails.
logged() {
	local log=$1
	shift

	if ! "$@" > "$log" 2>&1 < /dev/null; then
		tail -n 60 "$log" >&2
		printf 'failed: %s\n(the whole output is in %s)\n' "$*" "$log" >&2
		return 1
	fi
}

# build_in FOLDER [MESON OPTION...]: configure once, then bring up to date; log in the folder.
build_in() {
	local folder=$1
	shift

	mkdir -p "$folder"
	if [[ ! -e $folder/build.ninja ]]; then
		logged "$folder/setup.log" meson setup "$folder" "$top" "$@" || return 1
	fi
	logged "$folder/ninja.log" ninja -C "$folder"
}
