"""One CIM: made, read, extracted, compared, inspected, mounted."""
