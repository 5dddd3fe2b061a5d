package report

// Diagnosis is what `tensorpress doctor` finds on a machine.
type Diagnosis struct {
	Version string   `json:"version"` // of tensorpress
	Commit  string   `json:"commit,omitempty"`
	System  string   `json:"system"`      // "linux/amd64"
	CPU     string   `json:"cpu"`         // its name, "" where it is not known
	Kernels string   `json:"kernels"`     // the set in use
	Sets    []string `json:"kernel_sets"` // those that the processor has, from slow to fast
	Cores   int      `json:"cores"`
	Threads int      `json:"threads"` // that a run uses unless told otherwise
	Memory  Memory   `json:"memory"`
	Disks   []Disk   `json:"disks"`
	Pythons []Python `json:"pythons"`
	Apps    []Found  `json:"apps"`
	Notes   []string `json:"notes"`
	// Problems are why nothing can be quantized here.
	Problems []string `json:"problems"`
}

// Memory is in bytes; 0 is not known.
type Memory struct {
	Total     int64 `json:"total"`
	Available int64 `json:"available"`
	Limit     int64 `json:"limit"` // of the process's group, 0 where there is none
}

// Disk is what is free for files of a folder.
type Disk struct {
	Path string `json:"path"`
	Free int64  `json:"free"` // bytes, -1 where it is not known
}

// Python is an environment of Python's.
type Python struct {
	Path     string    `json:"path"` // its folder
	From     string    `json:"from"` // what named it
	Version  string    `json:"version"`
	Packages []Package `json:"packages"` // of those that have to do with quantized models
}

// Package is an installed one.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Found is an application that is installed.
type Found struct {
	App     string `json:"app"`     // as --for takes it
	Version string `json:"version"` // "" where it is not known
	Path    string `json:"path"`
	Loads   string `json:"loads"` // which of our outputs
}
