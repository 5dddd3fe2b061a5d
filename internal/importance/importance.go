// Package importance reads how much the inputs of a model's layers weigh: the mean
// square of each input, so that a search for codes can count the error of a column by
// what is multiplied with it. Moments lie in a safetensors file or in one of llama.cpp's
// importance matrices, whose names are matched with those of a model's layers.
package importance

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// File has the moments of layers' inputs by names. Values are read when they are asked
// for, so that it takes little memory however large it is.
type File struct {
	path    string
	r       io.ReaderAt
	size    int64
	imatrix bool // names are llama.cpp's
	entries []entry
	byName  map[string]int
	mu      sync.Mutex
	weights map[[sha256.Size]byte][]float32 // layers often have the same inputs
	matched []bool                          // by some model
}

// entry is the moments of one layer, or of all experts of one.
type entry struct {
	name   string // of the layer
	tensor string // as the file names it
	at     int64  // of its first value
	values int64
	counts int64 // where the counts of its matrices lie, 0 for none
	shares int64 // matrices, one after the other: 1, or the experts; 0 if the file does not tell
}

// Suffix is what follows a layer's name in the name of its moments.
const Suffix = ".input_moment"

// Open reads what a file has, without its values. Errors are the command's unless
// reading fails.
func Open(path string) (*File, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, usage.Errorf("%s is not a file: name one with moments of layers' inputs", path)
	}
	if err != nil {
		return nil, err
	}
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := Read(path, r, info.Size())
	if err != nil {
		r.Close()
	}
	return f, err
}

// Read is [Open] for a file of that size that is open already.
func Read(path string, r io.ReaderAt, size int64) (*File, error) {
	f := &File{path: path, r: r, size: size, byName: map[string]int{}, weights: map[[sha256.Size]byte][]float32{}}
	var start [9]byte
	n, err := r.ReadAt(start[:], 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch header := binary.LittleEndian.Uint64(start[:8]); {
	case n >= 4 && string(start[:4]) == "GGUF":
		err = f.readGGUF()
	case n == 9 && header < uint64(size) && start[8] == '{':
		err = f.readSafetensors()
	default:
		err = f.readDat()
	}
	if err != nil {
		return nil, f.wrap(err)
	}
	f.matched = make([]bool, len(f.entries))
	return f, nil
}

// wrap names the file in an error, which is the command's unless reading failed.
func (f *File) wrap(err error) error {
	if system := (*fs.PathError)(nil); errors.As(err, &system) {
		return err
	}
	return usage.Errorf("%s: %w", f.path, err)
}

// Path is the file's.
func (f *File) Path() string { return f.path }

// Close closes the file.
func (f *File) Close() error {
	if c, ok := f.r.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// add takes an entry, whose values must lie in the file.
func (f *File) add(e entry) error {
	if _, again := f.byName[e.name]; again {
		return fmt.Errorf("tensor %s is there twice: make the file anew", e.tensor)
	}
	if e.values < 1 || e.at < 0 || e.values > (f.size-e.at)/4 {
		return fmt.Errorf("tensor %s: its %d values do not lie in the file's %d bytes, which was cut short: copy or make it anew", e.tensor, e.values, f.size)
	}
	f.byName[e.name] = len(f.entries)
	f.entries = append(f.entries, e)
	return nil
}

// readSafetensors takes the tensors X.input_moment.
func (f *File) readSafetensors() error {
	file, err := safetensors.NewFile(f.r, f.size)
	if err != nil {
		return err
	}
	for _, t := range file.Header().Tensors {
		name, ok := strings.CutSuffix(t.Name, Suffix)
		switch {
		case !ok:
			continue
		case t.Dtype != safetensors.F32 || len(t.Shape) != 1 && len(t.Shape) != 2:
			return fmt.Errorf("tensor %s is %s %v: want F32 and one dimension, or two of which the first is the experts", t.Name, t.Dtype, t.Shape)
		case slices.Contains(t.Shape, 0):
			return fmt.Errorf("tensor %s is empty: want a value for each of the layer's inputs", t.Name)
		}
		at, err := file.Header().Section(t, 0, 0)
		if err == nil {
			values, shares := int64(t.Size)/4, int64(1)
			if len(t.Shape) == 2 {
				shares = int64(t.Shape[0])
			}
			err = f.add(entry{name: name, tensor: t.Name, at: at, values: values, shares: shares})
		}
		if err != nil {
			return err
		}
	}
	if len(f.entries) == 0 {
		return fmt.Errorf("has no tensor that ends in %s: make one with tools/moments.py", Suffix)
	}
	return nil
}

// floats reads n values that lie at a place of the file.
func (f *File) floats(at int64, n int) ([]float32, error) {
	raw := make([]byte, 4*n)
	if _, err := f.r.ReadAt(raw, at); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return values, nil
}

// read returns the moments of a layer of so many columns, nil if its inputs were never
// seen.
func (f *File) read(e *entry, share int64, layer string, columns int) ([]float32, error) {
	shares := e.shares
	if shares == 0 { // as many as have the layer's columns
		shares = max(e.values/int64(columns), 1)
	}
	if e.values != shares*int64(columns) {
		return nil, f.wrap(fmt.Errorf("tensor %s has %d values, and layer %s has %d inputs: moments of this very model are needed", e.tensor, e.values/shares, layer, columns))
	}
	if share >= shares {
		return nil, f.wrap(fmt.Errorf("tensor %s has moments of %d experts, and layer %s is another: moments of this very model are needed", e.tensor, shares, layer))
	}
	if e.counts > 0 {
		count, err := f.floats(e.counts+4*share, 1)
		switch {
		case err != nil:
			return nil, f.wrap(fmt.Errorf("counts of tensor %s: %w", e.tensor, err))
		case !(count[0] >= 0):
			return nil, f.wrap(fmt.Errorf("tensor %s: a count of %v inputs cannot be: make the file anew", e.tensor, count[0]))
		case count[0] == 0:
			return nil, nil
		}
	}
	moments, err := f.floats(e.at+4*share*int64(columns), columns)
	if err != nil {
		return nil, f.wrap(fmt.Errorf("tensor %s: %w", e.tensor, err))
	}
	for i, m := range moments {
		if !(m >= 0) || math.IsInf(float64(m), 1) {
			return nil, f.wrap(fmt.Errorf("tensor %s: value %d is %v, and mean squares are finite and not negative: make the file anew", e.tensor, i, m))
		}
	}
	return moments, nil
}

// least is the least moment of a column, in means of the layer: inputs that were not
// seen in a sample may come all the same.
const least = 0x1p-10

// weigh makes moments weights, whose mean is 1. It returns nil if no input was ever
// other than zero.
func weigh(moments []float32) []float32 {
	sum := 0.0
	for _, m := range moments {
		sum += float64(m)
	}
	if sum == 0 {
		return nil
	}
	floor := sum / float64(len(moments)) * least
	sum = 0
	for _, m := range moments {
		sum += max(float64(m), floor)
	}
	mean := sum / float64(len(moments))
	weights := make([]float32, len(moments))
	for i, m := range moments {
		weights[i] = float32(max(float64(m), floor) / mean)
	}
	return weights
}

// shared returns weights once for all layers that have the same.
func (f *File) shared(weights []float32) []float32 {
	if weights == nil {
		return nil
	}
	h := sha256.New()
	if err := binary.Write(h, binary.LittleEndian, weights); err != nil {
		return weights
	}
	key := [sha256.Size]byte(h.Sum(nil))
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.weights[key]; ok {
		return known
	}
	f.weights[key] = weights
	return weights
}

// Unmatched returns the layers that the file has and no model so far does.
func (f *File) Unmatched() []string {
	var names []string
	for i, matched := range f.matched {
		if !matched {
			names = append(names, f.entries[i].name)
		}
	}
	slices.Sort(names)
	return names
}

// CheckMatched refuses a file of whose layers no model has any; some is the name of a
// layer of theirs.
func (f *File) CheckMatched(some string) error {
	if slices.Contains(f.matched, true) {
		return nil
	}
	return f.wrap(fmt.Errorf("none of its layers, such as %s, is one of the source, such as %s: moments of this very model are needed, by its layers' names", f.Unmatched()[0], some))
}
