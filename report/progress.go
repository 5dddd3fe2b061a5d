package report

// Progress is how far a run has come: a line of --progress json. The last line of a run
// has another State than running.
type Progress struct {
	// Done is what is done of the work, in bytes that are read, written again for their
	// hashes or sent to where they go, about. It does not decrease, and is Total once the
	// run is ok.
	Done int64 `json:"done"`
	// Total is all work that is known. It may grow where a run finds more to do; 0 before
	// anything is known.
	Total int64 `json:"total"`
	// State is how the run is, or how it has ended: failed is any exit status but 0 and
	// 130, which is interrupted.
	State State `json:"state"`
	// Phase is what the run is at.
	Phase Phase `json:"phase"`
	// Seconds have passed since the run began.
	Seconds float64 `json:"seconds"`
	// RemainingSeconds are how long the work that is known will still take, by its speed of
	// the last time. It is absent for the first seconds, and while nothing is known.
	RemainingSeconds *float64 `json:"remaining_seconds,omitempty"`
	// Read counts the bytes of sources that were read, again where they were read again, and
	// of finished shards that were checked.
	Read int64 `json:"read"`
	// Written counts the bytes of the output's weights and of files that were copied.
	Written int64 `json:"written"`
	// Uploaded counts the bytes of the output that are with a store or the hub; absent
	// where it goes to a path.
	Uploaded int64 `json:"uploaded,omitempty"`
	// ReadRate is how many bytes were read a second, of the last seconds.
	ReadRate float64 `json:"read_rate"`
	// WriteRate is how many bytes were written a second, of the last seconds.
	WriteRate float64 `json:"write_rate"`
	// Retries count the requests of a network that had to be made again, by why: 429 (too
	// many), 5xx (the server failed), cut (the connection broke, or brought too little),
	// timeout, refused (no connection). It is absent where none had to.
	Retries map[string]int64 `json:"retries,omitempty"`
}

// State is how a run is.
type State string

// The states of a run.
const (
	Running     State = "running"
	OK          State = "ok"
	Failed      State = "failed"
	Interrupted State = "interrupted"
)

// Phase is what a run is at.
type Phase string

// The phases of a run.
const (
	Planning  Phase = "planning"  // headers and configs are read, and all is decided
	Measuring Phase = "measuring" // weights are read for a decision
	Writing   Phase = "writing"   // weights are read, and the output is made
	Verifying Phase = "verifying" // what was written is read
	Comparing Phase = "comparing" // two checkpoints are read
	Hashing   Phase = "hashing"   // files are read for their sha256
	Uploading Phase = "uploading" // what was made is on its way to where it goes
	Placing   Phase = "placing"   // what was made is put in its place
)
