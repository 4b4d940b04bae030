/* SPDX-License-Identifier: Apache-2.0 */
/* The host, read from /proc and statvfs(2); see host.h. */
#include "one/host/host.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/strbuf.h"

#define SAMPLE_MS 500 /* of the CPUs, between two looks */
#define MIB       (1024ull * 1024)

/* "key : value" of a file of /proc, first line that begins with key; caller frees. */
static char *proc_value(const char *path, const char *key)
{
	AUTO_FILE FILE *f = fopen(path, "re");
	AUTO_FREE char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		char *colon = strchr(line, ':');

		if (!colon || !str_starts(line, key))
			continue;
		colon += 1 + strspn(colon + 1, " \t");
		return xstrndup(colon, strcspn(colon, "\n"));
	}
	return NULL;
}

static unsigned long long memory_kib(const char *key)
{
	AUTO_FREE char *text = proc_value("/proc/meminfo", key);

	return text ? strtoull(text, NULL, 10) : 0;
}

void host_put_static(struct strbuf *sb)
{
	AUTO_FREE char *model = proc_value("/proc/cpuinfo", "model name");
	AUTO_FREE char *mhz = proc_value("/proc/cpuinfo", "cpu MHz");
	struct utsname uts = {0};

	(void)uname(&uts);
	strbuf_printf(sb, "HOSTNAME=\"%s\"\nARCH=%s\nMODELNAME=\"%s\"\nCPUSPEED=%ld\n",
		      uts.nodename, uts.machine, model ? model : "",
		      mhz ? strtol(mhz, NULL, 10) : 0);
	strbuf_printf(sb, "TOTALCPU=%ld\nTOTALMEMORY=%llu\n", 100 * sysconf(_SC_NPROCESSORS_ONLN),
		      memory_kib("MemTotal"));
}

struct cpu_time {
	unsigned long long idle, all;
};

static struct cpu_time cpu_time(void)
{
	AUTO_FILE FILE *f = fopen("/proc/stat", "re");
	AUTO_FREE char *line = NULL;
	struct cpu_time t = {0};
	size_t size = 0;
	char *at;

	if (!f || getline(&line, &size, f) <= 0)
		return t;
	at = line + strcspn(line, " ");
	for (int i = 0; *at && *at != '\n'; i++) {
		unsigned long long value = strtoull(at, &at, 10);

		/* idle and iowait are the 4th and 5th; guests count in user already */
		t.idle += i == 3 || i == 4 ? value : 0;
		t.all += i < 8 ? value : 0;
	}
	return t;
}

static void put_cpu(struct strbuf *sb)
{
	struct cpu_time was = cpu_time(), is;
	long total = 100 * sysconf(_SC_NPROCESSORS_ONLN), free;

	(void)poll(NULL, 0, SAMPLE_MS); /* a rate wants a time */
	is = cpu_time();
	free = is.all > was.all ? (long)((double)(is.idle - was.idle) * (double)total /
					 (double)(is.all - was.all))
				: total;
	strbuf_printf(sb, "USEDCPU=%ld\nFREECPU=%ld\n", total - free, free);
}

static void put_net(struct strbuf *sb)
{
	AUTO_FILE FILE *f = fopen("/proc/net/dev", "re");
	AUTO_FREE char *line = NULL;
	unsigned long long rx = 0, tx = 0;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		char *at = strchr(line, ':');

		if (!at || strstr(line, " lo:"))
			continue;
		at++;
		for (int i = 0; i < 9; i++) {
			unsigned long long value = strtoull(at, &at, 10);

			rx += i == 0 ? value : 0;
			tx += i == 8 ? value : 0;
		}
	}
	strbuf_printf(sb, "NETRX=%llu\nNETTX=%llu\n", rx, tx);
}

void host_put_usage(struct strbuf *sb)
{
	unsigned long long total = memory_kib("MemTotal"), free = memory_kib("MemAvailable");

	strbuf_printf(sb, "USEDMEMORY=%llu\nFREEMEMORY=%llu\n", total - free, free);
	put_cpu(sb);
	put_net(sb);
}

static bool sizes(const char *path, unsigned long long mb[3])
{
	struct statvfs st;

	if (statvfs(path, &st) < 0)
		return false;
	mb[0] = st.f_blocks * st.f_frsize / MIB;
	mb[1] = (st.f_blocks - st.f_bfree) * st.f_frsize / MIB;
	mb[2] = st.f_bavail * st.f_frsize / MIB;
	return true;
}

void host_put_datastores(struct strbuf *sb, const char *location)
{
	DIR *dir = opendir(location);
	const struct dirent *entry;
	unsigned long long mb[3];

	if (sizes(location, mb))
		strbuf_printf(sb,
			      "DS_LOCATION_USED_MB=%llu\nDS_LOCATION_TOTAL_MB=%llu\n"
			      "DS_LOCATION_FREE_MB=%llu\n",
			      mb[1], mb[0], mb[2]);
	while (dir && (entry = readdir(dir)) != NULL) {
		AUTO_FREE char *path = xasprintf("%s/%s", location, entry->d_name);
		AUTO_FREE char *mark = xasprintf("%s/.monitor", path);

		if (strspn(entry->d_name, "0123456789") == strlen(entry->d_name) &&
		    access(mark, F_OK) == 0 && sizes(path, mb))
			strbuf_printf(sb,
				      "DS = [ ID=%s, USED_MB=%llu, TOTAL_MB=%llu, FREE_MB=%llu "
				      "]\n",
				      entry->d_name, mb[1], mb[0], mb[2]);
	}
	if (dir)
		(void)closedir(dir);
}
