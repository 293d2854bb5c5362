#include "tarparts.h"

#include <stdlib.h>

static const struct layer_tar_field NAME = {0, 100}, SIZE = {124, 12}, MTIME = {136, 12}, CHECKSUM = {148, 8},
                                    LINK = {157, 100}, PREFIX = {345, 155}, GNU_ATIME = {345, 12},
                                    GNU_CTIME = {357, 12};
enum { TYPE_OFFSET = 156, MAGIC_OFFSET = 257 };

static struct layer_slice text_field(const uint8_t *block, struct layer_tar_field field)
{
    const char *text = (const char *)block + field.offset;
    const char *end = memchr(text, 0, field.width);
    return (struct layer_slice){text, end ? (size_t)(end - text) : field.width};
}

/* Some old writers summed signed characters: of how many the sum is less by 256 each. */
static uint32_t count_negative(const uint8_t *block)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < LAYER_TAR_BLOCK; i++)
        count += block[i] >> 7;
    for (uint32_t i = CHECKSUM.offset; i < CHECKSUM.offset + CHECKSUM.width; i++)
        count -= block[i] >> 7;
    return count;
}

static int checksum_fits(const uint8_t *block)
{
    int64_t expected;
    uint32_t sum = layer_tar_sum(block);
    if (layer_tar_number(block, CHECKSUM, &expected) < 0)
        return 0;
    for (uint32_t i = CHECKSUM.offset; i < CHECKSUM.offset + CHECKSUM.width; i++) /* this field counts as spaces */
        sum += ' ' - (uint32_t)block[i];
    return expected == (int64_t)sum || expected == (int64_t)sum - 256 * (int64_t)count_negative(block);
}

static int pick_time(struct layer_tar *tar, struct layer_slice text, int64_t otherwise, int64_t *time)
{
    *time = otherwise;
    if (text.data && layer_tar_time(text, time) < 0)
        return layer_tar_fail(tar, "a malformed time");
    return 0;
}

/* GNU headers may carry two more times, where others have the prefix; zero means that they do not. */
static int gnu_times(const uint8_t *block, int64_t *access, int64_t *change)
{
    return layer_tar_number(block, GNU_ATIME, access) < 0 ? -1 : layer_tar_number(block, GNU_CTIME, change);
}

static int take_times(struct layer_tar *tar, struct layer_entry *entry)
{
    const uint8_t *block = tar->header;
    int64_t seconds = 0, time, access_seconds, change_seconds;
    if (!PICK(tar, mtime).data && layer_tar_number(block, MTIME, &seconds) < 0)
        return layer_tar_fail(tar, "a malformed modification time");
    time = layer_tar_filetime(seconds, 0);
    if (pick_time(tar, PICK(tar, mtime), time, &time) < 0)
        return -1;
    int64_t access = time, change = time;
    if (layer_tar_is_gnu(block) && gnu_times(block, &access_seconds, &change_seconds) == 0) {
        access = access_seconds ? layer_tar_filetime(access_seconds, 0) : time;
        change = change_seconds ? layer_tar_filetime(change_seconds, 0) : time;
    }
    entry->last_write_time = time;
    if (pick_time(tar, PICK(tar, atime), access, &entry->last_access_time) < 0 ||
        pick_time(tar, PICK(tar, ctime), change, &entry->change_time) < 0)
        return -1;
    return pick_time(tar, PICK(tar, creation_time), time, &entry->creation_time);
}

static int is_ascii(struct layer_slice text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] & 0x80)
            return 0;
    return 1;
}

/*
 * POSIX headers have a prefix. GNU's have times there; but Go before 1.8 could write a prefix behind GNU's magic, and
 * its reader takes one for what are no times.
 */
static int has_prefix(const uint8_t *block, struct layer_slice prefix)
{
    int64_t access, change;
    if (prefix.size == 0)
        return 0;
    return layer_tar_is_gnu(block) ? gnu_times(block, &access, &change) < 0 && is_ascii(prefix)
                                   : memcmp(block + MAGIC_OFFSET, "ustar", 6) == 0;
}

/* GNU's long name counts before a PAX record, whichever stands first. */
static struct layer_slice pick_name(const struct layer_pax *gnu, struct layer_slice record, struct layer_slice field)
{
    if (gnu->text_size)
        return (struct layer_slice){gnu->text, strnlen(gnu->text, gnu->text_size)};
    return record.data ? record : field;
}

static void take_names(struct layer_tar *tar, struct layer_entry *entry)
{
    const uint8_t *block = tar->header;
    struct layer_slice name = text_field(block, NAME);
    struct layer_slice prefix = text_field(block, PREFIX);
    if (has_prefix(block, prefix)) {
        memcpy(tar->ustar_name, prefix.data, prefix.size);
        tar->ustar_name[prefix.size] = '/';
        memcpy(tar->ustar_name + prefix.size + 1, name.data, name.size);
        name = (struct layer_slice){tar->ustar_name, prefix.size + 1 + name.size};
    }
    struct layer_slice link = text_field(block, LINK);
    entry->name = pick_name(&tar->long_name, PICK(tar, path), name);
    entry->link = pick_name(&tar->long_link, PICK(tar, link_path), link);
}

static int take_eas(struct layer_tar *tar, struct layer_entry *entry)
{
    const struct layer_pax *only = tar->global.ea_count == 0 ? &tar->local : &tar->global;
    entry->eas = only->eas;
    entry->ea_count = only->ea_count;
    if (tar->global.ea_count == 0 || tar->local.ea_count == 0)
        return 0;
    if (layer_tar_merge_eas(tar, &tar->global, &tar->local) < 0)
        return -1;
    entry->eas = tar->eas;
    entry->ea_count = tar->ea_count;
    return 0;
}

static int other(struct layer_entry *entry, const char *what)
{
    entry->type = LAYER_OTHER;
    entry->other = what;
    return 0;
}

static int special(struct layer_tar *tar, struct layer_entry *entry, const char *what)
{
    if (!tar->specials)
        return layer_tar_fail(tar, what);
    entry->type = LAYER_SPECIAL;
    entry->other = what;
    return 0;
}

static int take_type(struct layer_tar *tar, char type, struct layer_entry *entry)
{
    int slash = entry->name.size > 0 && entry->name.data[entry->name.size - 1] == '/';
    switch (type) {
    case 0:
    case '0':
    case '7':
        entry->type = slash ? LAYER_DIRECTORY : LAYER_FILE; /* as v7 wrote directories */
        return 0;
    case '1':
        entry->type = LAYER_HARD_LINK;
        return 0;
    case '2':
        entry->type = LAYER_SYMLINK;
        return 0;
    case '5':
        entry->type = LAYER_DIRECTORY;
        return 0;
    case '3':
        return special(tar, entry, "a character device");
    case '4':
        return special(tar, entry, "a block device");
    case '6':
        return special(tar, entry, "a FIFO");
    case 'S':
        entry->type = LAYER_FILE;
        return 0;
    case 'D':
        return other(entry, "a list of the files in a directory");
    case 'M':
        return other(entry, "the rest of a file from another volume");
    case 'V':
        return other(entry, "a volume label");
    default:
        return other(entry, "an entry of unknown type");
    }
}

static int take_entry(struct layer_tar *tar, char type)
{
    struct layer_entry *entry = &tar->entry;
    int64_t size;
    uint64_t attributes;
    *entry = (struct layer_entry){.offset = tar->entry_offset};
    take_names(tar, entry);
    if (take_type(tar, type, entry) < 0 || take_times(tar, entry) < 0 || take_eas(tar, entry) < 0)
        return -1;
    struct layer_slice text = PICK(tar, size);
    if (text.data ? layer_tar_decimal(text, &entry->size) < 0
                  : layer_tar_number(tar->header, SIZE, &size) < 0 || size < 0)
        return layer_tar_fail(tar, "a malformed size");
    if (!text.data)
        entry->size = (uint64_t)size;
    if (entry->size > INT64_MAX - LAYER_TAR_BLOCK)
        return layer_tar_fail(tar, "a size beyond all limits");
    text = PICK(tar, attributes);
    if (text.data) {
        if (layer_tar_decimal(text, &attributes) < 0 || attributes > UINT32_MAX)
            return layer_tar_fail(tar, "malformed file attributes");
        entry->has_attributes = 1;
        entry->attributes = (uint32_t)attributes;
    }
    entry->raw_descriptor = PICK(tar, raw_descriptor);
    entry->sddl = PICK(tar, sddl);
    entry->raw_reparse = PICK(tar, raw_reparse);
    entry->raw_eas = PICK(tar, raw_eas);
    entry->mount_point = PICK(tar, mount_point).data != NULL;
    return 0;
}

struct layer_pax *layer_tar_records(struct layer_tar *tar)
{
    switch (tar->record_type) {
    case 'g':
        return &tar->incoming;
    case 'L':
        return &tar->long_name;
    case 'K':
        return &tar->long_link;
    default:
        return &tar->local;
    }
}

static int start_records(struct layer_tar *tar, char type)
{
    tar->record_type = type;
    struct layer_pax *pax = layer_tar_records(tar);
    int64_t size;
    if (layer_tar_number(tar->block, SIZE, &size) < 0 || size < 0 || size > (int64_t)LAYER_TAR_MAX_RECORDS)
        return layer_tar_fail(tar, "PAX records or a long name of more than 8 MiB");
    layer_tar_reset_records(pax); /* a second header of the kind replaces what the first one said */
    if (pax == &tar->local)
        layer_tar_reset_sparse(tar);
    if ((size_t)size > pax->text_capacity) {
        char *text = realloc(pax->text, (size_t)size);
        if (!text)
            return layer_tar_fail(tar, "out of memory");
        pax->text = text;
        pax->text_capacity = (size_t)size;
    }
    tar->left = (uint64_t)size;
    tar->padding = (uint32_t)(-(uint64_t)size % LAYER_TAR_BLOCK);
    tar->state = RECORDS;
    return 0;
}

static int is_zero(const uint8_t *block)
{
    for (uint32_t i = 0; i < LAYER_TAR_BLOCK; i++)
        if (block[i])
            return 0;
    return 1;
}

int layer_tar_take_header(struct layer_tar *tar)
{
    const uint8_t *block = tar->block;
    uint64_t offset = tar->offset - LAYER_TAR_BLOCK;
    if (is_zero(block)) {
        if (++tar->zero_blocks == 2)
            tar->state = DONE;
        return 0;
    }
    tar->zero_blocks = 0;
    if (tar->entry_offset == UINT64_MAX)
        tar->entry_offset = offset;
    if (!checksum_fits(block))
        return layer_tar_fail(tar, "a header with a wrong checksum");
    char type = (char)block[TYPE_OFFSET];
    if (type == 'x' || type == 'X' || type == 'g' || type == 'L' || type == 'K')
        return start_records(tar, type);
    memcpy(tar->header, block, LAYER_TAR_BLOCK);
    if (take_entry(tar, type) < 0)
        return -1;
    /* Only files bring data, and perhaps what nobody knows; old writers gave links a size that means nothing. */
    tar->left = tar->entry.type == LAYER_FILE || tar->entry.type == LAYER_OTHER ? tar->entry.size : 0;
    tar->entry.size = tar->left;
    tar->padding = (uint32_t)(-tar->left % LAYER_TAR_BLOCK);
    tar->state = DATA;
    return tar->entry.type == LAYER_FILE ? layer_tar_start_sparse(tar, type) : 1;
}
