/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replays files, and all files of directories, given as arguments through a fuzz target, so that
 * corpora are ordinary tests with any compiler. A crash is the failure; 2 when nothing was read.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"

#define INPUT_MAX (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
	AUTO_FREE char *data = NULL;
	struct err err = {0};
	size_t len;

	if (file_read(path, INPUT_MAX, &data, &len, NULL, &err) < 0) {
		(void)fprintf(stderr, "%s\n", err.msg);
		return -1;
	}
	/* Of the exact size, so that a sanitizer sees a read past the end. */
	data = xrealloc(data, len);
	(void)LLVMFuzzerTestOneInput((const uint8_t *)data, len);
	return 1;
}

static int replay_dir(const char *path)
{
	struct dirent **list;
	int n = scandir(path, &list, NULL, alphasort);
	int done = 0;

	if (n < 0) {
		perror(path);
		return -1;
	}
	for (int i = 0; i < n; i++) {
		AUTO_FREE char *file = path_join(path, list[i]->d_name);
		struct stat st;

		free(list[i]);
		if (done < 0 || stat(file, &st) < 0 || !S_ISREG(st.st_mode))
			continue;
		done = replay_file(file) < 0 ? -1 : done + 1;
	}
	free(list);
	return done;
}

int main(int argc, char **argv)
{
	int total = 0;

	for (int i = 1; i < argc; i++) {
		struct stat st;
		int n;

		if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
			n = replay_dir(argv[i]);
		else
			n = replay_file(argv[i]);
		if (n < 0)
			return 2;
		total += n;
	}
	(void)printf("%d inputs replayed\n", total);
	return total > 0 ? 0 : 2;
}
