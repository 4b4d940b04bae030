/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Change single keys of a UCL file that a person wrote: comments, order and layout of everything
 * else survive. The result is parsed again and must be exactly the intended tree, else the edit
 * is refused. Works on text; writing the file is the caller's (store/).
 */
#pragma once

#include <stddef.h>

struct err;

enum ucl_edit_op {
	UCL_EDIT_SET,    /* replace the value of a key, or add the key at the end of its object */
	UCL_EDIT_REMOVE, /* remove the item with its line if nothing else is on it */
};

struct ucl_edit {
	enum ucl_edit_op op;
	/* Keys from the root: {"web0", "disk", "root", "size"}; a decimal number picks an element
	 * of an array. Missing inner objects are made. NULL-terminated. */
	const char *const *path;
	/* SET: the new value, already written in UCL or JSON: "2048", "\"a b\"", "{ size = 1; }".
	 */
	const char *value;
};

/*
 * Apply edits[count] to text (the file called name). *ret is the new text, owned by the caller.
 * Either all edits or none: -EINVAL "FILE:LINE:COLUMN: ..." when the text does not parse;
 * -ENOTSUP with FILE:LINE and the reason when a key cannot be changed in place (it stands in an
 * include, in a heredoc, is given more than once, ...), saying to edit the file by hand;
 * -ENOENT when a key to remove is not there.
 */
int ucl_edit(const char *name, const char *text, size_t len, const struct ucl_edit *edits,
	     size_t count, char **ret, struct err *err);

/*
 * text as a UCL value: quoted and escaped, dollars too, so that it reads back as it is; caller
 * frees. Foreign text goes through this, not through JSON, where $CURDIR would be replaced.
 */
char *ucl_quote(const char *text);
