package importance

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// What a GGUF file may have before its tensors, far more than an importance matrix needs.
const (
	mostGGUF    = 64 << 20 // bytes
	mostName    = 1 << 12
	mostTensors = 1 << 20
)

// ggufReader reads the beginning of a GGUF file in order.
type ggufReader struct {
	*bufio.Reader
	at  int64
	err error
}

func (r *ggufReader) take(p []byte) {
	if r.err != nil {
		clear(p)
		return
	}
	n, err := io.ReadFull(r.Reader, p)
	r.at += int64(n)
	if err != nil {
		clear(p)
		r.err = errors.New("the file was cut short, or says too much before its tensors: copy or make it anew")
	}
}

func (r *ggufReader) u32() uint32 {
	var p [4]byte
	r.take(p[:])
	return binary.LittleEndian.Uint32(p[:])
}

func (r *ggufReader) u64() uint64 {
	var p [8]byte
	r.take(p[:])
	return binary.LittleEndian.Uint64(p[:])
}

func (r *ggufReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// skip leaves n bytes out.
func (r *ggufReader) skip(n uint64) {
	if r.err != nil {
		return
	}
	if n > mostGGUF {
		r.fail("a value of %d bytes cannot be: make the file anew", n)
		return
	}
	done, err := r.Discard(int(n))
	r.at += int64(done)
	if err != nil {
		r.fail("the file was cut short, or says too much before its tensors: copy or make it anew")
	}
}

func (r *ggufReader) name() string {
	n := r.u64()
	if n > mostName {
		r.fail("a name of %d bytes cannot be: make the file anew", n)
		return ""
	}
	p := make([]byte, n)
	r.take(p)
	return string(p)
}

// ggufSizes are the bytes of a value by its type; 8 is a text and 9 a list.
var ggufSizes = [...]uint64{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}

const (
	ggufU32  = 4
	ggufText = 8
	ggufList = 9
	ggufF32  = 0 // of tensors
)

// value leaves a value out. Lists of lists do not occur.
func (r *ggufReader) value(kind uint32) {
	switch {
	case int(kind) >= len(ggufSizes):
		r.fail("a value of type %d is unknown", kind)
	case kind == ggufText:
		r.skip(r.u64())
	case kind == ggufList:
		r.list()
	default:
		r.skip(ggufSizes[kind])
	}
}

func (r *ggufReader) list() {
	kind, n := r.u32(), r.u64()
	switch {
	case int(kind) >= len(ggufSizes) || kind == ggufList:
		r.fail("a list of type %d is unknown", kind)
	case n > mostGGUF:
		r.fail("a list of %d values cannot be: make the file anew", n)
	case kind == ggufText:
		for i := uint64(0); i < n && r.err == nil; i++ {
			r.skip(r.u64())
		}
	default:
		r.skip(n * ggufSizes[kind])
	}
}

// ggufTensor is one of the file: F32, with its place after the beginning.
type ggufTensor struct {
	values int64
	last   int64 // dimension
	at     uint64
	isF32  bool
}

func (r *ggufReader) tensor() (name string, t ggufTensor) {
	name = r.name()
	dims := r.u32()
	if dims > 8 {
		r.fail("tensor %s of %d dimensions cannot be: make the file anew", name, dims)
		return name, t
	}
	t.values, t.last = 1, 1
	for range dims {
		n := r.u64()
		if n > math.MaxInt64/8 || n > 0 && t.values > math.MaxInt64/8/int64(n) {
			r.fail("tensor %s is too large to be: make the file anew", name)
			return name, t
		}
		t.values *= int64(n)
		t.last = int64(n)
	}
	t.isF32 = r.u32() == ggufF32
	t.at = r.u64()
	return name, t
}

// readGGUF takes the tensors NAME.in_sum2 with their NAME.counts.
func (f *File) readGGUF() error {
	f.imatrix = true
	r := &ggufReader{Reader: bufio.NewReader(io.NewSectionReader(f.r, 0, min(f.size, mostGGUF)))}
	r.skip(4)
	if version := r.u32(); version != 2 && version != 3 {
		r.fail("version %d of GGUF: want 2 or 3, in the byte order of most machines", version)
	}
	tensors, values := r.u64(), r.u64()
	if tensors > mostTensors {
		r.fail("%d tensors cannot be: make the file anew", tensors)
	}
	align := uint64(32)
	for i := uint64(0); i < values && r.err == nil; i++ {
		key, kind := r.name(), r.u32()
		if key == "general.alignment" && kind == ggufU32 {
			align = uint64(r.u32())
		} else {
			r.value(kind)
		}
	}
	if align == 0 || align > 1<<20 {
		r.fail("tensors aligned to %d bytes cannot be: make the file anew", align)
	}
	all := map[string]ggufTensor{}
	var names []string
	for i := uint64(0); i < tensors && r.err == nil; i++ {
		name, t := r.tensor()
		all[name] = t
		names = append(names, name)
	}
	if r.err != nil {
		return r.err
	}
	return f.addGGUF(names, all, (r.at+int64(align)-1)/int64(align)*int64(align))
}

func (f *File) addGGUF(names []string, all map[string]ggufTensor, begin int64) error {
	for _, tensor := range names {
		layer, ok := strings.CutSuffix(tensor, ".in_sum2")
		if !ok {
			continue
		}
		sums, counts := all[tensor], all[layer+".counts"]
		switch {
		case counts.values < 1:
			return fmt.Errorf("tensor %s has no counts beside it: make the file anew with llama-imatrix", tensor)
		case !sums.isF32 || !counts.isF32:
			return fmt.Errorf("tensor %s or its counts are not F32: make the file anew with llama-imatrix", tensor)
		case sums.at > uint64(f.size) || counts.at > uint64(f.size) || counts.values > (f.size-begin-int64(counts.at))/4:
			return fmt.Errorf("tensor %s does not lie in the file's %d bytes, which was cut short: copy or make it anew", tensor, f.size)
		}
		err := f.add(entry{
			name: strings.TrimSuffix(layer, ".weight"), tensor: tensor, at: begin + int64(sums.at), values: sums.values,
			counts: begin + int64(counts.at), shares: counts.values,
		})
		if err != nil {
			return err
		}
	}
	if len(f.entries) == 0 {
		return errors.New("is a GGUF file without tensors NAME.in_sum2, a model perhaps: name what llama-imatrix made of it")
	}
	return nil
}
