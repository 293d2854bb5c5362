"""How a compiled class shows itself: under its public name, which Cython has no directive for."""

cdef extern from *:
    """
    static int show_as(PyObject *shown, const char *module, const char *name)
    {
        PyTypeObject *type = (PyTypeObject *)shown;
        PyObject *text;
        int result;
        if (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
            type->tp_name = name; /* from which __module__ and __qualname__ are read */
            return 0;
        }
        text = PyUnicode_FromString(module);
        result = text ? PyDict_SetItemString(type->tp_dict, "__module__", text) : -1;
        Py_XDECREF(text);
        return result;
    }
    """
    int show_as(object type, const char *module, const char *name) except -1
