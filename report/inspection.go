package report

// Inspection describes what a checkpoint holds, see tensorpress.Inspect.
type Inspection struct {
	Path   string `json:"path"`
	Layout string `json:"layout"` // "sdnq", "comfy" or what older and other ones are called; "" where nothing is quantized
	// Part says which part of a model the file is; "" for a whole model.
	Part     string            `json:"part,omitempty"`
	Metadata map[string]string `json:"metadata"`
	Layers   []StoredLayer     `json:"layers"`  // the quantized ones
	Tensors  []Tensor          `json:"tensors"` // all
	Bytes    int64             `json:"bytes"`   // of all tensors
}

// StoredLayer is a quantized layer.
type StoredLayer struct {
	Name    string   `json:"name"`
	Format  string   `json:"format"`
	Dtype   string   `json:"dtype"`
	Shape   []int    `json:"shape"` // of the weight before it was quantized
	Options Options  `json:"options"`
	Tensors []Tensor `json:"tensors"`
	Bytes   int64    `json:"bytes"`
	Problem string   `json:"problem,omitempty"` // why it cannot be decoded
}

// Tensor is a stored tensor.
type Tensor struct {
	Name  string `json:"name"`
	Dtype string `json:"dtype"` // as safetensors names it
	Shape []int  `json:"shape"`
	Bytes int64  `json:"bytes"`
	// SHA256 is that of the tensor's bytes, "" where it was not asked for.
	SHA256 string `json:"sha256,omitempty"`
}
