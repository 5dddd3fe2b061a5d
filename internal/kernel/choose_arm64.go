//go:build !purego

package kernel

// others is NEON, which Go itself requires on arm64.
func others() []choice { return []choice{{"neon", &neon, true}} }
