package report

// MeasurementForm is the form of a [Measurement] that this release writes and reads.
const MeasurementForm = 1

// Measurement is what every layer of a source takes and loses in every entry of a menu,
// see tensorpress.Measure.
type Measurement struct {
	Measurement int    `json:"measurement"` // the form of what follows, 1
	Source      string `json:"source,omitempty"`
	// Fingerprint tells the source from others: by the names, dtypes, shapes and places of
	// its tensors, the metadata of its header, and samples of their values.
	Fingerprint string      `json:"fingerprint"`
	Layout      string      `json:"layout"`
	For         string      `json:"for,omitempty"` // the application that loads all entries
	Menu        []MenuEntry `json:"menu"`
	// Layers are those for which there is a choice.
	Layers  []MeasuredLayer `json:"layers"`
	BytesIn int64           `json:"bytes_in"`
	// BytesFixed is what the output takes beside these layers, about: tensors that are
	// kept, layers of which rules say how they are stored, and headers.
	BytesFixed int64 `json:"bytes_fixed"`
	Values     int64 `json:"values"` // of all tensors
	// Seconds is how long measuring took.
	Seconds float64  `json:"seconds,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// MenuEntry is a way to store layers, and what comes of it where every layer that can has
// it and all others are kept.
type MenuEntry struct {
	Name     string `json:"name"`
	Settings string `json:"settings"` // in full, as rules have them; "keep" for plain weights
	Layers   int    `json:"layers"`   // that can have it
	BytesOut int64  `json:"bytes_out"`
	// RelMSE is the mean of the layers' relative errors, each as often as it has values.
	RelMSE *float64 `json:"rel_mse"`
}

// MeasuredLayer is a layer with what it may be stored as.
type MeasuredLayer struct {
	Name    string           `json:"name"`
	Shape   []int            `json:"shape"`
	BytesIn int64            `json:"bytes_in"`
	Choices []MeasuredChoice `json:"choices"`
}

// MeasuredChoice is a layer as an entry of the menu, or "keep", stores it.
type MeasuredChoice struct {
	Entry string `json:"entry"`
	// RelMSE is the relative error, as in an [Error]; nil where it is not finite, which
	// no budget chooses.
	RelMSE *float64 `json:"rel_mse"`
	Bytes  int64    `json:"bytes"` // companions and the entries of headers included
}

// Budget is what was chosen so that an output has a size.
type Budget struct {
	Bytes       int64       `json:"bytes"`       // that it may have
	Fingerprint string      `json:"fingerprint"` // of the source, as in a [Measurement]
	Menu        []MenuEntry `json:"menu"`
	// Chosen, Least and Best are the output, the smallest one that the menu allows, and
	// the one that loses least.
	Chosen Point `json:"chosen"`
	Least  Point `json:"least"`
	Best   Point `json:"best"`
	// Gap is how much less another choice of that size might lose at most, as a part of
	// the loss; 0 where none loses less.
	Gap float64 `json:"gap"`
	// Frontier are choices from the smallest to the best, to which none of the same size
	// is preferable.
	Frontier []Point `json:"frontier"`
	// Settings are those of layers without a rule, in the words of a rule.
	Settings string   `json:"settings"`
	Layers   []Choice `json:"layers"`
}

// Point is the size of an output and its error: the mean of the relative errors of the
// layers for which there is a choice, each as often as it has values.
type Point struct {
	Bytes  int64   `json:"bytes"`
	RelMSE float64 `json:"rel_mse"`
}

// Choice is what was chosen for a layer, and what was not: what is smaller, and what
// loses less.
type Choice struct {
	Name string `json:"name"`
	MeasuredChoice
	// Pattern and Settings are those of the rule that makes it so, "" where none has to.
	Pattern  string          `json:"pattern,omitempty"`
	Settings string          `json:"settings,omitempty"`
	Smaller  *MeasuredChoice `json:"smaller,omitempty"`
	Better   *MeasuredChoice `json:"better,omitempty"`
}
