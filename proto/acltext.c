/* ACLs as text: see the header for the model. */

#include "proto/acltext.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"

/* Bytes of the text. */
typedef struct Piece {
        const char *p;
        size_t n;
} Piece;

static const struct {
        const char *word;
        AclTag obj;             /* with nobody between the colons */
        AclTag named;           /* with somebody; 0: never */
} kinds[] = {
        { "user",  ACL_USER_OBJ,  ACL_USER },
        { "group", ACL_GROUP_OBJ, ACL_GROUP },
        { "mask",  ACL_MASK,      0 },
        { "other", ACL_OTHER,     0 },
};
#define N_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static const char letters[] = "rwx";

static const char bad_perms[] = "permissions are up to three of \"rwx-\", or a digit";
static const char bad_entry[] = "an entry is KIND:WHO:PERMISSIONS";

/* -- reading ---------------------------------------------------------------------------- */

static bool is_space(char c) {
        return c == ' ' || c == '\t' || c == '\r';
}

static Piece trim(Piece piece) {
        while (piece.n > 0 && is_space(piece.p[0]))
                piece = (Piece){ piece.p + 1, piece.n - 1 };
        while (piece.n > 0 && is_space(piece.p[piece.n - 1]))
                --piece.n;
        return piece;
}

static bool is_word(Piece piece, const char *word) {
        return piece.n > 0 && ((piece.n == 1 && piece.p[0] == word[0]) ||
                               (piece.n == strlen(word) && memcmp(piece.p, word, piece.n) == 0));
}

/* Splits at colons. Return: how many fields there are; more than fit are counted, not kept. */
static size_t split(Piece entry, Piece *fields, size_t n_max) {
        size_t n = 0;

        for (;;) {
                const char *colon = entry.n > 0 ? memchr(entry.p, ':', entry.n) : NULL;
                size_t length = colon ? (size_t)(colon - entry.p) : entry.n;

                if (n < n_max)
                        fields[n] = trim((Piece){ entry.p, length });
                ++n;
                if (!colon)
                        return n;
                entry = (Piece){ colon + 1, entry.n - length - 1 };
        }
}

static const char *read_perms(Piece field, uint8_t *ret) {
        unsigned int perms = 0;

        if (field.n == 1 && field.p[0] >= '0' && field.p[0] <= '7') {
                *ret = (uint8_t)(field.p[0] - '0');
                return NULL;
        }
        if (field.n == 0 || field.n > 3)
                return bad_perms;
        for (size_t i = 0; i < field.n; ++i) {
                const char *letter = memchr(letters, field.p[i], sizeof(letters) - 1);
                unsigned int bit = letter ? 4U >> (letter - letters) : 0;

                if (perms & bit || (!letter && field.p[i] != '-'))
                        return bad_perms;
                perms |= bit;
        }
        *ret = (uint8_t)perms;
        return NULL;
}

static bool read_number(Piece field, uint32_t *ret) {
        uint64_t value = 0;

        for (size_t i = 0; i < field.n; ++i) {
                if (field.p[i] < '0' || field.p[i] > '9')
                        return false;
                value = value * 10 + (uint64_t)(field.p[i] - '0');
                if (value >= UINT32_MAX)
                        return false;
        }
        *ret = (uint32_t)value;
        return true;
}

static const char *read_who(Piece field, AclTag tag, AclTextFind find, void *userdata, uint32_t *ret) {
        char name[ACLTEXT_NAME_MAX + 1];

        if (find && field.n <= ACLTEXT_NAME_MAX && !memchr(field.p, '\0', field.n)) {
                memcpy(name, field.p, field.n);
                name[field.n] = '\0';
                if (find(tag, name, ret, userdata))
                        return NULL;
        }
        if (read_number(field, ret))
                return NULL;
        return tag == ACL_USER ? "there is no such user" : "there is no such group";
}

static const char *read_kind(Piece word, Piece who, AclTextFind find, void *userdata, AclEntry *ret) {
        for (size_t i = 0; i < N_KINDS; ++i) {
                if (!is_word(word, kinds[i].word))
                        continue;
                ret->tag = (uint8_t)(who.n > 0 ? kinds[i].named : kinds[i].obj);
                if (who.n == 0)
                        return NULL;
                if (!ret->tag)
                        return "mask and other are about nobody in particular";
                return read_who(who, kinds[i].named, find, userdata, &ret->id);
        }
        return "an entry begins with user, group, mask or other";
}

/* Takes an entry apart: [default:]KIND:[WHO]:PERMS, where mask and other may be KIND:PERMS. */
static const char *read_entry(Piece text, unsigned int flags, AclTextFind find, void *userdata,
                              AclEntry *ret, bool *ret_default) {
        bool bare = flags & ACLTEXT_BARE;
        Piece room[4] = { { NULL, 0 } }, *fields = room, who = { NULL, 0 };
        size_t n = split(text, fields, 4);
        const char *wrong;

        *ret = (AclEntry){ .id = ACL_NO_ID };
        *ret_default = n > 1 && is_word(fields[0], "default");
        if (*ret_default) {
                if (!(flags & ACLTEXT_DEFAULTS))
                        return "an entry of a default ACL has no place here";
                ++fields;
                --n;
        }
        if (n > 3 || (n < 2 && !bare))
                return bad_entry;
        if (n == 3 || (n == 2 && (bare || is_word(fields[0], "user") || is_word(fields[0], "group"))))
                who = fields[1];
        if (n == 2 && !bare && who.n > 0)
                return bad_entry;
        wrong = read_kind(fields[0], who, find, userdata, ret);
        if (wrong)
                return wrong;
        if (bare)
                return n < 3 || fields[2].n == 0 ? NULL : "an entry to remove has no permissions";
        return read_perms(fields[n - 1], &ret->perms);
}

/* Takes the next entry off the text. Return: whether there was one; empty ones are skipped. */
static bool next_entry(const char *text, size_t n, size_t *at, Piece *ret) {
        while (*at < n) {
                size_t begin = *at, end, comment;

                for (end = begin; end < n && text[end] != ',' && text[end] != '\n' && text[end] != '#'; ++end)
                        ;
                for (comment = end; comment < n && text[end] == '#' && text[comment] != '\n'; ++comment)
                        ;
                *at = comment + 1;
                *ret = trim((Piece){ text + begin, end - begin });
                if (ret->n > 0)
                        return true;
        }
        return false;
}

int acltext_parse(const char *text, size_t n, unsigned int flags, AclTextFind find, void *userdata,
                  AclText *ret, AclTextError *error) {
        const char *wrong = NULL;
        Piece piece;

        *ret = (AclText){ .access.n = 0 };
        for (size_t at = 0; !wrong && next_entry(text, n, &at, &piece);) {
                AclList *list;
                AclEntry entry;
                bool is_default;

                wrong = read_entry(piece, flags, find, userdata, &entry, &is_default);
                if (wrong)
                        break;
                list = is_default ? &ret->defaults : &ret->access;
                if (acl_list_find(list, entry.tag, entry.id))
                        wrong = acl_error_sentence(ACL_TWICE);
                else if (!acl_list_put(list, entry))
                        wrong = acl_error_sentence(ACL_TOO_MANY);
        }
        if (!wrong)
                return 0;
        if (error)
                *error = (AclTextError){ .sentence = wrong, .at = (size_t)(piece.p - text), .n = piece.n };
        return ACLTEXT_E_INVALID;
}

/* -- writing ---------------------------------------------------------------------------- */

void acltext_perms(unsigned int perms, char text[4]) {
        for (size_t i = 0; i < 3; ++i)
                text[i] = perms & 4U >> i ? letters[i] : '-';
        text[3] = '\0';
}

static const char *kind_word(AclTag tag) {
        for (size_t i = 0; i < N_KINDS; ++i)
                if (kinds[i].obj == tag || kinds[i].named == tag)
                        return kinds[i].word;
        ASSERT(false);
        return "";
}

size_t acltext_format(const AclEntry *entry, unsigned int flags, AclTextName name, void *userdata,
                      char text[ACLTEXT_ENTRY_MAX]) {
        AclTag tag = (AclTag)entry->tag;
        const char *word = kind_word(tag);
        char who[ACLTEXT_NAME_MAX + 1] = "", perms[4];
        int n;

        acltext_perms(entry->perms, perms);
        if (acl_tag_is_named(tag) && !(name && name(tag, entry->id, who, userdata)))
                (void)snprintf(who, sizeof(who), "%u", entry->id);
        if (flags & ACLTEXT_SHORT)
                n = snprintf(text, ACLTEXT_ENTRY_MAX, "%s%.1s:%s:%s", flags & ACLTEXT_IS_DEFAULT ? "d:" : "",
                             word, who, perms);
        else
                n = snprintf(text, ACLTEXT_ENTRY_MAX, "%s%s:%s:%s", flags & ACLTEXT_IS_DEFAULT ? "default:" : "",
                             word, who, perms);
        return (size_t)n;
}
