/* SPDX-License-Identifier: Apache-2.0 */
/* POST /vm/:id/attach and its like: single changes of a VM's hardware; see operate.c. */
#pragma once

struct http_request;

void handle_attach(struct http_request *req, void *ctx);
void handle_detach(struct http_request *req, void *ctx);
void handle_resize(struct http_request *req, void *ctx);
void handle_medium(struct http_request *req, void *ctx);
