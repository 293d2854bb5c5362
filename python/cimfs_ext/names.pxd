cpdef bint is_file_name(str name) except -1
