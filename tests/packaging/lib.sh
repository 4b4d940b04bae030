# SPDX-License-Identifier: Apache-2.0
#
# What the trials of the package share; read by tests/packaging/chroot and tests/packaging/systemd.
# Expects $top, the checkout; sets $folder, $made, $suite, $mirror.

suite=bookworm
folder=
made=
mirror=

skip() {
	printf 'skipped: %s\n' "$*"
	exit 77
}

step() {
	printf '\n==> %s\n' "$*"
}

die() {
	printf '\nFAILED: %s\n' "$*" >&2
	exit 1
}

# needs_root PROGRAM...
needs_root() {
	local program

	[[ $EUID -eq 0 ]] || skip "needs root, for debootstrap and chroot"
	for program; do
		command -v "$program" > /dev/null ||
			skip "needs $program (apt-get install debootstrap dpkg-dev debhelper lintian util-linux)"
	done
	# Where this machine gets Debian from, and how.
	mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 2> /dev/null |
		awk -v suite="$suite" '$1 == suite { print $2; exit }')
	[[ -n $mirror ]] || skip "apt of this machine names no source of $suite"
}

# into FOLDER: everything is made there; without one in a new folder, which goes at the end.
into() {
	folder=${1:-}
	if [[ -z $folder ]]; then
		made=$(mktemp -d) && folder=$made
		trap 'rm -rf --one-file-system "$made"' EXIT
	fi
	mkdir -p "$folder" || exit 1
}

# build_package VERSION: into $folder/VERSION, always from the same path, so that ccache helps.
build_package() {
	local into=$folder/$1 source=$folder/source/drover

	rm -rf "$folder/source" "$into" && mkdir -p "$into" "$source" || return 1
	(cd "$top" && git ls-files -z --cached --others --exclude-standard --deduplicate |
		xargs -0 cp -P --parents -t "$source") || return 1
	sed -i "1s/(.*)/($1)/" "$source/debian/changelog"
	(cd "$source" && dpkg-buildpackage -b -uc -us) > "$into/build.log" 2>&1 || {
		tail -n 40 "$into/build.log" >&2
		return 1
	}
	mv "$folder"/source/*.* "$into/" && (cd "$into" && ls -- *.deb)
}

# bootstrap ROOT [OPTION...]: a Debian without a service that starts, with this machine's way to packages.
bootstrap() {
	local root=$1

	shift
	debootstrap --variant=minbase "$@" "$suite" "$root" "$mirror" > "$folder/debootstrap.log" 2>&1 || {
		tail -n 5 "$folder/debootstrap.log"
		grep -qE 'Failed getting release|Unable to|unreachable' "$folder/debootstrap.log" &&
			skip "debootstrap cannot reach a mirror of $suite"
		die "debootstrap failed"
	}
	apt-config dump | grep -E '^Acquire::(Check-|https?::)' > "$root/etc/apt/apt.conf.d/90host"
	printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
}

# inside ROOT COMMAND...: in a pid namespace of its own: whatever is started ends with it.
inside() {
	local root=$1

	shift
	unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" \
		chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
		DEBIAN_FRONTEND=noninteractive ${http_proxy:+"http_proxy=$http_proxy"} \
		${https_proxy:+"https_proxy=$https_proxy"} "$@"
}
