#include "readahead.h"

#include <stdlib.h>

static struct cimfs_readahead_piece *piece_for(struct cimfs_readahead *ahead, uint64_t offset)
{
    return &ahead->pieces[(offset >> CIMFS_OFFSET_BITS) % CIMFS_READAHEAD_REGIONS];
}

const uint8_t *cimfs_readahead_find(struct cimfs_readahead *ahead, const struct cimfs_extent *stream)
{
    struct cimfs_readahead_piece *piece = piece_for(ahead, stream->offset);
    if (stream->offset < piece->start || stream->offset > piece->end || stream->length > piece->end - stream->offset)
        return NULL;
    piece->next = stream->offset + stream->length;
    return piece->data + (stream->offset - piece->start);
}

/* How many bytes to read from a content on, which lies in its region. */
static size_t size_of_piece(const struct cimfs_readahead_piece *piece, const struct cimfs_reader *reader,
                            const struct cimfs_extent *stream)
{
    uint64_t size, within = stream->offset & CIMFS_OFFSET_MASK;
    uint8_t type;
    if (stream->offset < piece->next || stream->offset - piece->next >= CIMFS_PAGE ||
        cimfs_reader_region(reader, (uint32_t)(stream->offset >> CIMFS_OFFSET_BITS), NULL, &size, &type) < 0)
        return (size_t)stream->length;
    return size - within < CIMFS_READAHEAD_PIECE ? (size_t)(size - within) : CIMFS_READAHEAD_PIECE;
}

cimfs_hresult cimfs_readahead_read(struct cimfs_readahead *ahead, const struct cimfs_reader *reader,
                                   const struct cimfs_extent *stream, struct cimfs_error *error, const uint8_t **data)
{
    struct cimfs_readahead_piece *piece = piece_for(ahead, stream->offset);
    CIMFS_TRY(cimfs_reader_check_place(reader, stream->offset, stream->length, error));
    if (!piece->buffer && !(piece->buffer = malloc(CIMFS_READAHEAD_PIECE + CIMFS_HOST_PAGE)))
        return cimfs_fail(error, CIMFS_E_OUT_OF_MEMORY, NULL, CIMFS_NO_OFFSET, NULL);
    size_t size = size_of_piece(piece, reader, stream);
    piece->data = cimfs_in_page(piece->buffer, stream->offset);
    piece->start = piece->end = stream->offset;
    cimfs_hresult result = cimfs_reader_fetch(reader, stream->offset, piece->data, size, error);
    if (result < 0 && result != CIMFS_E_FAIL && size > stream->length) {
        size = (size_t)stream->length; /* it may be what follows that cannot be read */
        result = cimfs_reader_fetch(reader, stream->offset, piece->data, size, error);
    }
    CIMFS_TRY(result);
    piece->end += size;
    piece->next = stream->offset + stream->length;
    *data = piece->data;
    return CIMFS_OK;
}

void cimfs_readahead_cleanup(struct cimfs_readahead *ahead)
{
    for (unsigned i = 0; i < CIMFS_READAHEAD_REGIONS; i++)
        free(ahead->pieces[i].buffer);
}
