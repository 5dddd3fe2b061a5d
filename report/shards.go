package report

// Shards are the weight files of a run that keeps what is finished of an output.
type Shards struct {
	Part  int     `json:"part,omitempty"`  // from 1 on, 0 where all are written
	Parts int     `json:"parts,omitempty"` // into how many the output is divided
	Count int     `json:"count"`           // of the whole output
	Files []Shard `json:"files"`           // of this run
	// Folder keeps what is finished of a part until the output is put in place.
	Folder string `json:"folder,omitempty"`
}

// Shard is one of them.
type Shard struct {
	Name  string `json:"name"` // a slash path in the output
	Bytes int64  `json:"bytes"`
	Kept  bool   `json:"kept"` // it was finished before
}

// Bytes are those of all of them.
func (s *Shards) Bytes() (n int64) {
	for _, f := range s.Files {
		n += f.Bytes
	}
	return n
}

// Finished is how many of them were finished before.
func (s *Shards) Finished() (n int) {
	for _, f := range s.Files {
		if f.Kept {
			n++
		}
	}
	return n
}

// Finished is an output that was put in place once all of its parts were there.
type Finished struct {
	Dest   string `json:"dest"`
	Shards int    `json:"shards"`
	Files  []File `json:"files"` // with the weights' first, in the order of the output
	Bytes  int64  `json:"bytes"`
	// Already says that it was in place before, and nothing was left to do: Files is empty.
	Already bool     `json:"already"`
	Notes   []string `json:"notes,omitempty"`
	Next    *Next    `json:"next,omitempty"` // what to do with it, nil where that is not sure
	Seconds float64  `json:"seconds"`
}
