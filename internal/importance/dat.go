package importance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// readDat reads llama.cpp's older importance matrix: a number of entries, each a name,
// how often it was added to, and values, which are sums.
func (f *File) readDat() error {
	f.imatrix = true
	d := &datReader{File: f}
	entries := d.int32()
	if d.err != nil || entries < 1 || entries > mostTensors {
		return errUnknown
	}
	for i := range entries {
		n := d.int32()
		if d.err == nil && (n < 1 || n > mostName) {
			d.err = fmt.Errorf("the name of entry %d of %d would have %d bytes: copy or make it anew", i+1, entries, n)
		}
		if d.err != nil && i == 0 {
			return errUnknown // more likely another file than a damaged one
		}
		tensor := d.text(n)
		d.int32() // how often: the same for all of its values
		values := d.int32()
		if d.err != nil {
			return d.err
		}
		if err := f.add(entry{name: strings.TrimSuffix(tensor, ".weight"), tensor: tensor, at: d.at, values: int64(values)}); err != nil {
			return err
		}
		d.at += 4 * int64(values)
	}
	return nil
}

var errUnknown = errors.New("is neither a safetensors file with tensors X" + Suffix + " nor an importance matrix of llama.cpp's: make one with tools/moments.py or llama-imatrix")

type datReader struct {
	*File
	at  int64
	err error
}

func (d *datReader) take(n int64) []byte {
	if d.err == nil && n > d.size-d.at {
		d.err = fmt.Errorf("was cut short after %d bytes: copy or make it anew", d.size)
	}
	if d.err != nil {
		return nil
	}
	p := make([]byte, n)
	_, d.err = d.r.ReadAt(p, d.at)
	d.at += n
	return p
}

func (d *datReader) int32() int32 {
	p := d.take(4)
	if d.err != nil {
		return 0
	}
	return int32(binary.LittleEndian.Uint32(p))
}

func (d *datReader) text(n int32) string { return string(d.take(int64(n))) }
