// Package quality has what each dtype loses on real weights, so that whoever chooses one
// need not try them all.
package quality

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
)

// Row is a dtype, quantized with its defaults and, where it gains, with a search.
type Row struct {
	// Bits is what a value takes with all that is stored beside the codes.
	Bits float64
	// Plain and Searched are the sums of squared errors over those of squared weights,
	// means over layers, without a search and with one.
	Plain, Searched float64
}

// The table is made by a test of the root package from testdata/minilm.safetensors.
//
//go:embed quality.tsv
var table string

var all = sync.OnceValue(func() map[string]Row {
	rows := map[string]Row{}
	for line := range strings.Lines(table) {
		var name string
		var r Row
		if _, err := fmt.Sscan(line, &name, &r.Bits, &r.Plain, &r.Searched); err == nil {
			rows[name] = r
		}
	}
	return rows
})

// Of returns the row of a dtype, as --dtype names it in the comfy layout.
func Of(name string) (Row, bool) {
	r, ok := all()[name]
	return r, ok
}
