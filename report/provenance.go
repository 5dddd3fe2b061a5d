package report

// Provenance is what an output was made of, by what, and how: enough to make it again.
type Provenance struct {
	Version string `json:"version,omitempty"` // of tensorpress
	Command string `json:"command,omitempty"`
	// Settings are the flags that say what the output is, by their names, with those of a
	// recipe. A recipe may have just these keys.
	Settings Options `json:"settings"`
	// Sources are all files that were read or copied, Outputs all that were written; of a
	// plan there are none.
	Sources []File `json:"sources,omitempty"`
	Outputs []File `json:"outputs,omitempty"`
}

// File is a file as it was.
type File struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}
