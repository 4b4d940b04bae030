/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs: work that takes a while, such as making disks. A job has an id, progress, a deadline and
 * an outcome; it is told of on the feed, listed under /jobs, and kept in a state file, so that its
 * outcome is known after our own sudden end too. Whoever does the work owns the job until he
 * tells its end.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;
struct http_request;
struct job;
struct vmadmd;

#define JOBS_MAX       1000u    /* at once; more are refused with -EBUSY */
#define JOBS_KEPT      200u     /* ended ones, oldest forgotten first */
#define JOB_DEFAULT_MS 3600000u /* deadline when none is given */
#define JOB_DEADLINE_S 86400    /* the longest that may be asked for */

struct job_spec {
	const char *kind, *uuid, *command; /* "create", the VM's, "vmadm create" */
	uid_t uid;
	uint64_t timeout_ms;  /* 0: JOB_DEFAULT_MS */
	const json_t *images; /* paths the job makes, to tell what became of it; borrowed */
	/* End it, with the reason: job_end follows, maybe before this returns. -EBUSY: too late. */
	int (*cancel)(void *ctx, int r, const struct err *why, struct err *err);
	void *ctx;
};

int job_begin(struct vmadmd *d, const struct job_spec *spec, struct job **ret, struct err *err);
const char *job_id(const struct job *j);
/* percent 0 to 99; what: "disk0.qcow2", in words. */
void job_progress(struct job *j, unsigned percent, const char *what);
/* What the work came to, as its requester would have been answered; before job_end. Borrowed. */
void job_result(struct job *j, const json_t *result);
/* The job of this id that a killed vmadmd left running and live_repairs() spared; NULL: none.
 * cancel and ctx are the new owner's. */
struct job *job_adopt(struct vmadmd *d, const char *id,
		      int (*cancel)(void *ctx, int r, const struct err *why, struct err *err),
		      void *ctx);
/* A number of the work's own, kept over our sudden end; -1: none was noted. */
void job_note(struct job *j, const char *member, json_int_t value);
json_int_t job_noted(const struct job *j, const char *member);
/* It ended; j is the list's alone from here. */
void job_end(struct job *j, int r, const struct err *err);

/* At our start, after marks_clean: take up what is in the state files. */
void jobs_load(struct vmadmd *d);
void jobs_free(struct vmadmd *d);

void handle_jobs(struct http_request *req, void *ctx);
void handle_job(struct http_request *req, void *ctx);
void handle_job_cancel(struct http_request *req, void *ctx);
