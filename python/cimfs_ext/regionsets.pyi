from os import PathLike

from cimfs_ext.reports import RegionSet

def read_region_sets(path: str | PathLike[str]) -> list[RegionSet]: ...
