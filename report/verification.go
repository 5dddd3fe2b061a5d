package report

// Verification is what a verification found.
type Verification struct {
	OK       bool         `json:"ok"`
	Problems []Problem    `json:"problems"`
	Layers   []LayerError `json:"layers"` // empty without a source
	Total    Error        `json:"total"`
	// Needs are the releases of the application that loads it, where some of
	// its layers are not for older ones.
	Needs []Need `json:"needs,omitempty"`
	// Notes are what is not wrong and yet worth to know.
	Notes []string `json:"notes,omitempty"`
}

// Problem is one thing that is wrong.
type Problem struct {
	Tensor  string `json:"tensor"` // "" for the checkpoint as a whole
	Problem string `json:"problem"`
}

// LayerError is the error of one layer, and what it takes.
type LayerError struct {
	Name string `json:"name"`
	Figures
	// What the layer is stored as, and the bytes of it and of the source's
	// weight. They do not go to JSON: an [Inspection] has them there.
	Dtype              string `json:"-"`
	Shape              []int  `json:"-"`
	Bytes, BytesSource int64  `json:"-"`
}
