package report

// Difference is what tensorpress.Diff found of two checkpoints, A and B.
type Difference struct {
	// Same says that both have the same tensors with the same values; with Bytes, also that
	// all is stored in the same bytes and that the headers say the same.
	Same    bool    `json:"same"`
	Bytes   bool    `json:"bytes"`
	A       Side    `json:"a"`
	B       Side    `json:"b"`
	Counts  []Count `json:"counts"`
	Total   Error   `json:"total"` // over the weights whose values differ; nil without any
	Tensors []Pair  `json:"tensors"`
	// Metadata are entries of the headers that are not the same in both.
	Metadata []MetadataPair `json:"metadata"`
	Notes    []string       `json:"notes,omitempty"`
}

// Side is one of two checkpoints that are compared.
type Side struct {
	Path    string `json:"path"`
	Layout  string `json:"layout"` // as in an [Inspection]
	Tensors int    `json:"tensors"`
	Bytes   int64  `json:"bytes"` // of all tensors
}

// Count is of how many weights and tensors something was found.
type Count struct {
	Finding Finding `json:"finding"`
	Tensors int     `json:"tensors"`
}

// Pair is a weight, or another tensor, in two checkpoints. A quantized weight has the
// name that it has where it is plain, and all that is stored of it counts to it.
type Pair struct {
	Name    string  `json:"name"`
	Finding Finding `json:"finding"`
	// A and B are nil where the tensor is only in the other one.
	A *Stored `json:"a,omitempty"`
	B *Stored `json:"b,omitempty"`
	// Figures are the error of B's values, A's taken for the right ones; nil where no value
	// differs, or none can be compared.
	*Figures
	Detail string `json:"detail,omitempty"` // what differs beside the values, or why they cannot be compared
}

// Stored is how one checkpoint has a weight.
type Stored struct {
	Format string `json:"format,omitempty"` // "" for a plain tensor
	Dtype  string `json:"dtype"`
	Shape  []int  `json:"shape"`
	Bytes  int64  `json:"bytes"`
}

// MetadataPair is an entry of two headers.
type MetadataPair struct {
	Key string  `json:"key"`
	A   *string `json:"a"` // nil where the header has none
	B   *string `json:"b"`
}

// Finding is what two checkpoints have in common of a tensor.
type Finding string

// The findings.
const (
	SameBytes  Finding = "same bytes"
	SameValues Finding = "same values" // stored in other bytes, or within MaxRelMSE
	OtherValue Finding = "other values"
	OtherInput Finding = "other input scale" // the values are the same, what a layer does to its input is not
	OtherShape Finding = "other shape"
	OtherDtype Finding = "other dtype" // of which the values cannot be compared
	Unreadable Finding = "unreadable"  // a layer that cannot be decoded
	OnlyInA    Finding = "only in A"
	OnlyInB    Finding = "only in B"
)
