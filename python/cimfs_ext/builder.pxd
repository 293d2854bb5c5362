"""What the importer of tars needs of a layer builder; ``liblayer/path.h`` and ``builder.h`` as Cython sees them."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from cimfs_ext.cimfs cimport cimfs_api, cimfs_file_metadata, cimfs_hresult, cimfs_image, cimfs_stream
from cimfs_ext.image cimport ImageWriter


cdef extern from "liblayer/path.h" nogil:
    struct layer_path:
        uint16_t *units
        size_t length

    int layer_path_init(layer_path *)
    void layer_path_cleanup(layer_path *)
    const char *layer_path_from_call(layer_path *, const uint16_t *, size_t)


cdef extern from "liblayer/pathset.h" nogil:
    struct layer_path_set:
        uint64_t seed

    int layer_path_set_has(const layer_path_set *, const uint16_t *, size_t)
    int layer_path_set_describes(const layer_path_set *, const uint16_t *, size_t)


cdef extern from "liblayer/builder.h" nogil:
    const unsigned int LAYER_MAX_STANDARD

    enum layer_decision:
        LAYER_INSIDE
        LAYER_OUTSIDE
        LAYER_ROOT
        LAYER_REFUSED
        LAYER_BEYOND
        LAYER_FAILED

    struct layer_limits:
        uint64_t files
        uint64_t bytes
        uint64_t path_depth

    enum layer_limit:
        LAYER_LIMIT_FILES
        LAYER_LIMIT_BYTES
        LAYER_LIMIT_PATH_DEPTH

    struct layer_builder:
        int64_t time
        int has_parent
        layer_limits limits
        const void *descriptor
        size_t descriptor_size
        layer_path_set added
        layer_path_set linked
        layer_path_set above_linked
        int utility_vm
        const char *reason
        layer_limit limit
        cimfs_hresult code

    int layer_builder_init(layer_builder *, const cimfs_api *, cimfs_image, cimfs_stream *, const uint16_t **, size_t)
    void layer_builder_cleanup(layer_builder *)
    layer_decision layer_builder_count(layer_builder *, const layer_path *, uint64_t)
    layer_decision layer_builder_add(layer_builder *, const layer_path *, uint32_t)
    layer_decision layer_builder_link(layer_builder *, const layer_path *, const layer_path *)
    layer_decision layer_builder_stream(layer_builder *, const layer_path *, uint64_t)
    layer_decision layer_builder_remove(layer_builder *, const layer_path *, int)
    layer_decision layer_builder_check_descriptor(layer_builder *, const void *, size_t)
    layer_decision layer_builder_create(layer_builder *, layer_path *, const cimfs_file_metadata *)
    layer_decision layer_builder_make_link(layer_builder *, layer_path *, const layer_path *)


cdef str path_of(const layer_path *path)


cdef class LayerBuilder:
    cdef layer_builder builder
    cdef layer_path path  # of the call that is at work
    cdef layer_path target
    cdef const uint16_t **standard
    cdef list standard_texts  # what standard points into
    cdef bytes descriptor
    cdef readonly ImageWriter image
    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef int take(self, str text, layer_path *path) except -1
    cdef int take_target(self, str target, str path) except -1
    cdef int check(self, layer_decision decision, str operation, str path) except -1
    cdef object error(self, layer_decision decision, str operation, str path, str item=*, object offset=*)
