package lowrank

// buffers are what this package keeps in a scratch.
type buffers struct {
	rows, y, values []float32
	seen            []float64
	bytes           []byte
}
