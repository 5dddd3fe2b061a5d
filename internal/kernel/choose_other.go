//go:build !amd64 || purego

package kernel

func others() []choice { return nil }
