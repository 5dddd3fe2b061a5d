package report

// Outputs is what became of several outputs of one source, which was read for all at once.
type Outputs struct {
	Source string `json:"source,omitempty"`
	// Outputs are those that were made, or would be, in the order in which they were asked
	// for. The seconds of each are those of the run until it was whole.
	Outputs []*Report `json:"outputs"`
	// Failed are those that were not, where the others were to go on.
	Failed []Failure `json:"failed,omitempty"`
	// Seconds is how long the run took, without measuring; 0 in a plan.
	Seconds float64 `json:"seconds,omitempty"`
}

// Failure is an output that was not made, and why.
type Failure struct {
	Dest  string `json:"dest,omitempty"`
	Error string `json:"error"`
}
