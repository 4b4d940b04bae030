/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines on stderr, as text or as bunyan JSON (name, hostname, pid, level, msg, time, v). Only
 * daemons log; libraries return errors. A line: "vm=<uuid> event key=value ...", past tense for
 * facts, no secrets. The level is the project's only mutable global.
 */
#pragma once

#include <stdbool.h>

struct err;

/* bunyan's numbers. error: someone must act; warning: degraded; info: lifecycle; debug: the rest */
enum log_level {
	LOG_LEVEL_DEBUG = 20,
	LOG_LEVEL_INFO = 30,
	LOG_LEVEL_WARN = 40,
	LOG_LEVEL_ERROR = 50
};

enum log_format { LOG_TEXT, LOG_JSON };

void log_setup(const char *program, enum log_format format, enum log_level level);
bool log_enabled(enum log_level level);
void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
	do {                                                                                       \
		if (log_enabled(LOG_LEVEL_DEBUG))                                                  \
			log_at(LOG_LEVEL_DEBUG, __VA_ARGS__);                                      \
	} while (0)
