package report

// Verification is what tensorpress.Verify found.
type Verification struct {
	OK       bool         `json:"ok"`
	Problems []Problem    `json:"problems"`
	Layers   []LayerError `json:"layers"` // empty without a source
	Total    Error        `json:"total"`
	Merged   *Merged      `json:"merged,omitempty"`
	// Needs are the releases of the application that are required to load the
	// checkpoint, if older ones do not load some of its layers.
	Needs []Need `json:"needs,omitempty"`
	// Notes are facts that are no problems but worth knowing.
	Notes []string `json:"notes,omitempty"`
}

// Problem is one thing that is wrong.
type Problem struct {
	Tensor  string `json:"tensor"` // "" for the checkpoint as a whole
	Problem string `json:"problem"`
}

// LayerError is the error of one layer, and its size.
type LayerError struct {
	Name string `json:"name"`
	Figures
	// Dtype and Shape are those that the layer is stored as; Bytes and BytesSource are
	// its size and that of the source's weight. They are not in the JSON: that of an
	// [Inspection] has them.
	Dtype              string `json:"-"`
	Shape              []int  `json:"-"`
	Bytes, BytesSource int64  `json:"-"`
}
