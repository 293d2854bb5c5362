"""The choice of implementation, for the compiled modules that call ``cimfs.h``."""

from cimfs_ext.cimfs cimport cimfs_api, cimfs_hresult


cdef extern from "system.h" nogil:
    struct cimfs_function:
        const char *name
        size_t entry
        unsigned char writes
        unsigned int build

    const cimfs_function *cimfs_functions(size_t *)

    struct cimfs_system:
        cimfs_api api
        const char *missing
        void *writer
        void *library

    cimfs_hresult cimfs_system_load(cimfs_system *, const char *)


cdef class Implementation:
    cdef const cimfs_api *api
    cdef cimfs_system system
    cdef readonly str path
    cdef int require(self, bint present, str function, str path) except -1

cpdef Implementation choose(implementation=*)
