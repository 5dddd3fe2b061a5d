package main

import (
	"fmt"
	"slices"
)

// adapted reports whether adapters were merged into some of the page's layers, and what is
// left of their changes was measured.
func (p *page) adapted() bool {
	return slices.ContainsFunc(p.rows, func(r row) bool { return r.error != nil && r.error.Merged != nil })
}

// adaptedHeads are the heads of the columns that say so.
const adaptedHeads = "<th class=\"n\">kept</th><th class=\"n\">change_db</th>"

// adaptedCells are a layer's.
func (r row) adaptedCells() string {
	if r.error == nil || r.error.Merged == nil {
		return "<td></td><td></td>"
	}
	m := r.error.Merged
	return fmt.Sprintf("<td class=\"n\">%s</td><td class=\"n\">%s</td>", value(m.Kept, "%.3f"), value(m.SNR, "%.1f"))
}
