package report

// Assembly is what became of an all-in-one checkpoint that was split, or of parts that were
// joined. Tensors are copied, byte for byte.
type Assembly struct {
	Sources []string       `json:"sources"`
	Dest    string         `json:"dest,omitempty"`
	Parts   []AssemblyPart `json:"parts"`
	Bytes   int64          `json:"bytes"` // of all tensors
	Notes   []string       `json:"notes,omitempty"`
	// Provenance is there where a report was asked for.
	Provenance *Provenance `json:"provenance,omitempty"`
	Seconds    float64     `json:"seconds,omitempty"` // 0 in a plan
}

// AssemblyPart is a part of an all-in-one checkpoint.
type AssemblyPart struct {
	Part string `json:"part"` // "model", "vae", "clip_vision", "rest", or a text encoder
	// File is where a split writes it, a slash path in DEST, or what a join takes it from.
	File string `json:"file"`
	// Prefix is what its names begin with in the all-in-one checkpoint, as one of its tensors
	// shows; "" where the names are the same there.
	Prefix    string `json:"prefix"`
	Tensors   int    `json:"tensors"`
	Quantized int    `json:"quantized"` // layers
	Bytes     int64  `json:"bytes"`
}
