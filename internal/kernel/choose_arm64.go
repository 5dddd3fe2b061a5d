//go:build !purego

package kernel

// Go itself needs vector instructions on arm64.
func others() []choice { return []choice{{"neon", &neon, true}} }
