"""What a Windows layer means: the writer, standard files, what closing a layer does, destroying it."""
