package openfiles

func limit() int64 { return -1 }
