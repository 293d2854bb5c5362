"""An open image as the kernel's FUSE client wants it: file IDs in, packed replies out (linux/fuse.h, fuse(4))."""

import errno

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from cimfs_ext import errors

from cimfs_ext.cimfs cimport cimfs_error, cimfs_hresult
from cimfs_ext.libcimfs cimport (
    CIMFS_MAX_NAME,
    CIMFS_REPARSE_DATA,
    cimfs_attributes_of,
    cimfs_extent,
    cimfs_extent_of,
    cimfs_is_directory,
    cimfs_link,
    cimfs_links,
    cimfs_links_at,
    cimfs_links_file_id,
    cimfs_links_find,
    cimfs_name,
    cimfs_reader_children,
    cimfs_reader_record,
    cimfs_reader_root,
    cimfs_record,
    get32,
    get64,
)
from cimfs_ext.listing cimport decode, entry_of, reader_error
from cimfs_ext.reader cimport ImageReader


cdef struct fuse_attr:
    uint64_t ino
    uint64_t size
    uint64_t blocks
    uint64_t atime
    uint64_t mtime
    uint64_t ctime
    uint32_t atimensec
    uint32_t mtimensec
    uint32_t ctimensec
    uint32_t mode
    uint32_t nlink
    uint32_t uid
    uint32_t gid
    uint32_t rdev
    uint32_t blksize
    uint32_t flags

cdef struct fuse_attr_out:
    uint64_t attr_valid
    uint32_t attr_valid_nsec
    uint32_t dummy
    fuse_attr attr

cdef struct fuse_entry_out:
    uint64_t nodeid
    uint64_t generation
    uint64_t entry_valid
    uint64_t attr_valid
    uint32_t entry_valid_nsec
    uint32_t attr_valid_nsec
    fuse_attr attr

cdef struct fuse_dirent:
    uint64_t ino
    uint64_t off
    uint32_t namelen
    uint32_t type

cdef enum:
    FOR_EVER = 1 << 30  # seconds: an image never changes
    BLOCK = 512  # bytes of those that stat(2) counts
    READONLY = 0x1  # FILE_ATTRIBUTE_READONLY
    S_IFREG = 0o100000
    S_IFDIR = 0o040000
    S_IFLNK = 0o120000
    DEEPEST = 0xFFFF
    SYMBOLIC_LINK = 0xA000000C  # IO_REPARSE_TAG_SYMLINK

cdef int64_t UNIX_EPOCH = 116_444_736_000_000_000  # FILETIME
cdef int64_t TICKS = 10_000_000  # a second


cdef void put_time(int64_t filetime, uint64_t *seconds, uint32_t *nanoseconds):
    cdef int64_t ticks = filetime - UNIX_EPOCH
    seconds[0] = <uint64_t>(ticks // TICKS)
    nanoseconds[0] = <uint32_t>(ticks % TICKS) * 100


@cython.no_gc_clear
cdef class MountedFiles:
    """The tree of an image by the kernel's node IDs, which are file IDs, except that the root is 1.

    All names are counted once, here: ``max_names`` is how many there may be (LimitError). What a damaged directory
    holds is left out. ``target(reparse_data, depth)`` says where a symbolic link leads that lies so many directories
    deep, or None if it is none for the host; ``owner`` and ``group`` are those of all files.
    """

    cdef ImageReader image
    cdef object target
    cdef uint32_t owner
    cdef uint32_t group
    cdef uint32_t root
    cdef uint32_t last
    cdef readonly uint64_t names
    cdef uint32_t *counts  # names of each file; of a directory as POSIX has it: 2, and one for each directory in it
    cdef uint16_t *depths  # of each file's name that lies highest

    def __cinit__(self, ImageReader image not None, target, *, uint64_t max_names, uint32_t owner, uint32_t group):
        self.image = image
        self.target = target
        self.owner, self.group = owner, group
        self.last = image.last_file_id
        self.root = cimfs_reader_root(image.reader)
        self.counts = <uint32_t *>calloc(<size_t>self.last + 1, sizeof(uint32_t))
        self.depths = <uint16_t *>calloc(<size_t>self.last + 1, sizeof(uint16_t))
        cdef uint32_t *waiting = <uint32_t *>calloc(<size_t>self.last + 1, sizeof(uint32_t))
        try:
            if self.counts == NULL or self.depths == NULL or waiting == NULL:
                raise MemoryError
            image.enter()
            try:
                with nogil:
                    self.count_names(max_names, waiting)
            finally:
                image.leave()
        finally:
            free(waiting)
        if self.names > max_names:
            raise errors.LimitError("files", max_names, layer=image.name)

    def __dealloc__(self):
        free(self.counts)
        free(self.depths)

    cdef void count_names(self, uint64_t max_names, uint32_t *waiting) noexcept nogil:
        cdef cimfs_error error
        cdef cimfs_links links
        cdef cimfs_link link
        cdef cimfs_record record
        cdef uint32_t count = 1, directory, id, i, depth
        if not 0 < self.root <= self.last:
            return
        memset(&error, 0, sizeof(error))
        waiting[0] = self.root
        self.counts[self.root] = 2
        while count > 0:
            count -= 1
            directory = waiting[count]
            # The root's entries lie in no directory of which a link could climb out.
            depth = 0 if directory == self.root else min(<uint32_t>self.depths[directory] + 1, <uint32_t>DEEPEST)
            if (cimfs_reader_record(self.image.reader, directory, &error, &record) < 0
                    or cimfs_reader_children(self.image.reader, &record, &error, &links) < 0):
                continue
            for i in range(links.count):
                self.names += 1
                if self.names > max_names:
                    return
                if (cimfs_links_at(&links, i, &error, &link) < 0
                        or cimfs_links_file_id(&links, &link, &error, &id) < 0
                        or cimfs_reader_record(self.image.reader, id, &error, &record) < 0):
                    continue
                if self.counts[id] == 0 or depth < self.depths[id]:
                    self.depths[id] = <uint16_t>depth
                if not cimfs_is_directory(&record):
                    self.counts[id] += 1
                elif self.counts[id] == 0:  # else it has two names, or lies in itself
                    self.counts[id] = 2
                    self.counts[directory] += 1
                    waiting[count] = id
                    count += 1

    # ---- nodes ----

    cdef uint32_t swapped(self, uint64_t node) except? 0:
        """The file ID of a node, and the other way round."""
        if node == 1:
            return self.root
        if node == self.root:
            return 1
        if node > self.last:
            raise OSError(errno.ESTALE, "no such node")
        return <uint32_t>node

    cdef bytes target_of(self, uint32_t id, const cimfs_record *record):
        """Where a symbolic link leads; None for everything else, and for a directory that holds something."""
        cdef cimfs_error error
        cdef cimfs_links links
        if get32(record.reparse_tag) != SYMBOLIC_LINK:
            return None
        memset(&error, 0, sizeof(error))
        if cimfs_is_directory(record) and (
                cimfs_reader_children(self.image.reader, record, &error, &links) < 0 or links.count > 0):
            return None
        entry = entry_of(id, "", record)
        target = self.target(self.image.attachment(entry, CIMFS_REPARSE_DATA), self.depths[id])
        return None if target is None else target.encode("utf-8", "surrogatepass")

    cdef int fill(self, uint32_t id, const cimfs_record *record, fuse_attr *attr) except -1:
        cdef cimfs_extent data = cimfs_extent_of(record.data)
        cdef bint directory = cimfs_is_directory(record)
        cdef bytes target = self.target_of(id, record)
        cdef bint readonly = cimfs_attributes_of(record) & READONLY
        memset(attr, 0, sizeof(attr[0]))
        attr.ino = id
        attr.nlink = max(self.counts[id], 1)
        attr.uid, attr.gid = self.owner, self.group
        attr.blksize = 1 << 16
        if target is not None:
            attr.mode, attr.size = S_IFLNK | 0o777, len(target)
        elif directory:
            attr.mode = S_IFDIR | 0o755
        else:
            attr.mode, attr.size = S_IFREG | (0o444 if readonly else 0o644), data.length
            if not data.sparse:  # GNU tar -S skips a file that has none
                attr.blocks = (data.length + BLOCK - 1) // BLOCK
        put_time(<int64_t>get64(record.last_access_time), &attr.atime, &attr.atimensec)
        put_time(<int64_t>get64(record.last_write_time), &attr.mtime, &attr.mtimensec)
        put_time(<int64_t>get64(record.change_time), &attr.ctime, &attr.ctimensec)
        return 0

    cdef int fill_entry(self, uint32_t id, const cimfs_record *record, fuse_entry_out *out) except -1:
        memset(out, 0, sizeof(out[0]))
        out.nodeid = self.swapped(id)
        out.entry_valid = out.attr_valid = FOR_EVER
        return self.fill(id, record, &out.attr)

    # ---- replies ----

    def entry(self, uint64_t node):
        """The entry of a node; it has no name."""
        cdef cimfs_record record
        cdef uint32_t id = self.swapped(node)
        self.image.enter()
        try:
            self.image.read_record(id, &record)
        finally:
            self.image.leave()
        return entry_of(id, "", &record)

    def attributes(self, uint64_t node):
        """``struct fuse_attr_out``."""
        cdef fuse_attr_out out
        cdef cimfs_record record
        cdef uint32_t id = self.swapped(node)
        memset(&out, 0, sizeof(out))
        out.attr_valid = FOR_EVER
        self.image.enter()
        try:
            self.image.read_record(id, &record)
            self.fill(id, &record, &out.attr)
        finally:
            self.image.leave()
        return (<const char *>&out)[:sizeof(out)]

    def readlink(self, uint64_t node):
        """Where a symbolic link leads; OSError (EINVAL) if it is none."""
        cdef cimfs_record record
        cdef uint32_t id = self.swapped(node)
        self.image.enter()
        try:
            self.image.read_record(id, &record)
            target = self.target_of(id, &record)
        finally:
            self.image.leave()
        if target is None:
            raise OSError(errno.EINVAL, "not a symbolic link")
        return target

    def lookup(self, uint64_t parent, bytes name not None):
        """``struct fuse_entry_out`` of a name in a directory, whatever its case; of node 0 if it is not there."""
        cdef fuse_entry_out out
        cdef cimfs_error error
        cdef cimfs_links links
        cdef cimfs_link link
        cdef cimfs_record record
        cdef cimfs_name wanted
        cdef cimfs_hresult code
        cdef uint32_t id = 0
        cdef int found = 0
        memset(&out, 0, sizeof(out))
        memset(&error, 0, sizeof(error))
        out.entry_valid = FOR_EVER
        cdef bytes units = _utf16(name)
        if units is not None:
            wanted.units = <const uint16_t *><const char *>units
            wanted.length = <uint32_t>(len(units) // 2)
            self.image.enter()
            try:
                self.open_directory(parent, &links)
                code = cimfs_links_find(&links, wanted, &error, &link, &found)
                if code >= 0 and found:
                    code = cimfs_links_file_id(&links, &link, &error, &id)
                if code < 0:
                    raise reader_error(self.image.reader, code, &error, "look up", self.image.name)
                if found:
                    self.image.read_record(id, &record)
                    self.fill_entry(id, &record, &out)
            finally:
                self.image.leave()
        return (<const char *>&out)[:sizeof(out)]

    def children(self, uint64_t node):
        """The names in a directory with the nodes that they lead to."""
        cdef cimfs_links links
        cdef cimfs_link link
        cdef uint32_t id, i
        result = []
        self.image.enter()
        try:
            self.open_directory(node, &links)
            for i in range(links.count):
                self.child(&links, i, &link, &id)
                result.append((decode(&link), self.swapped(id)))
        finally:
            self.image.leave()
        return result

    def read_directory(self, uint64_t node, uint64_t offset, size_t size, *, bint plus):
        """Entries from a number on, at most ``size`` bytes: ``struct fuse_dirent``, or ``fuse_direntplus``."""
        cdef cimfs_links links
        cdef cimfs_link link
        cdef cimfs_record record
        cdef uint32_t id
        cdef size_t used = 0, head = sizeof(fuse_entry_out) if plus else 0, room
        cdef fuse_dirent dirent
        cdef bytes name
        cdef bytes packed = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        cdef char *to = PyBytes_AS_STRING(packed)
        self.image.enter()
        try:
            self.open_directory(node, &links)
            while offset < links.count:
                self.child(&links, <uint32_t>offset, &link, &id)
                self.image.read_record(id, &record)
                name = decode(&link).encode("utf-8", "surrogatepass")
                room = (head + sizeof(dirent) + <size_t>len(name) + 7) // 8 * 8
                if room > size - used:
                    break
                memset(to + used, 0, room)
                offset += 1
                dirent.ino, dirent.off, dirent.namelen = id, offset, <uint32_t>len(name)
                if plus:
                    self.fill_entry(id, &record, <fuse_entry_out *>(to + used))
                    dirent.type = (<fuse_entry_out *>(to + used)).attr.mode >> 12
                elif self.target_of(id, &record) is not None:
                    dirent.type = S_IFLNK >> 12
                else:
                    dirent.type = (S_IFDIR if cimfs_is_directory(&record) else S_IFREG) >> 12
                memcpy(to + used + head, &dirent, sizeof(dirent))
                memcpy(to + used + head + sizeof(dirent), <const char *>name, <size_t>len(name))
                used += room
        finally:
            self.image.leave()
        return packed[:used]

    cdef int open_directory(self, uint64_t node, cimfs_links *links) except -1:
        cdef cimfs_error error
        cdef cimfs_record record
        self.image.read_record(self.swapped(node), &record)
        if not cimfs_is_directory(&record):
            raise NotADirectoryError(errno.ENOTDIR, "is not a directory", self.image.name)
        memset(&error, 0, sizeof(error))
        cdef cimfs_hresult code = cimfs_reader_children(self.image.reader, &record, &error, links)
        if code < 0:
            raise reader_error(self.image.reader, code, &error, "list directory", self.image.name)
        return 0

    cdef int child(self, const cimfs_links *links, uint32_t index, cimfs_link *link, uint32_t *id) except -1:
        cdef cimfs_error error
        memset(&error, 0, sizeof(error))
        cdef cimfs_hresult code = cimfs_links_at(links, index, &error, link)
        if code >= 0:
            code = cimfs_links_file_id(links, link, &error, id)
        if code < 0:
            raise reader_error(self.image.reader, code, &error, "list directory", self.image.name)
        return 0


cdef bytes _utf16(bytes name):
    """A name of the host as the image would have it; None if it can have no such name."""
    try:
        units = name.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return units if len(units) <= 2 * CIMFS_MAX_NAME else None
