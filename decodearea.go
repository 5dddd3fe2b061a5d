package tensorpress

import (
	"github.com/tensorpress/tensorpress/internal/stream"
	"github.com/tensorpress/tensorpress/quant"
)

// readAny restores any area of a weight of that many columns into the worker's
// buffer of that number. The layer is decoded in areas of its own, which cover
// it, in the buffer after that one.
func (d *decoding) readAny(w *stream.Worker, buffer, columns int, a quant.Area) ([]float32, error) {
	dst := w.Floats(buffer, a.Values())
	cut, rows, cols := d.shape()
	if a.Cols == columns && columns != cut.Cols { // a run, wherever rows end
		a = quant.Area{Col: a.Row * columns, Rows: 1, Cols: a.Values()}
		columns = cut.Rows * cut.Cols
	}
	for _, cover := range coverOf(cut, columns, a) {
		for part := range cover.Split(rows, cols) {
			values := w.Floats(buffer+1, part.Values())
			if _, err := d.restore(w, values, part); err != nil {
				return nil, err
			}
			for i := range part.Rows {
				start := (part.Row+i)*cut.Cols + part.Col
				pick(dst, a, columns, start, values[i*part.Cols:(i+1)*part.Cols])
			}
		}
	}
	return dst, nil
}

// coverOf are whole units that hold an area of a weight of that many columns.
// Where the layer has no rows, parts of rows are taken one by one, unless a
// unit is as long as a row.
func coverOf(cut quant.Cut, columns int, a quant.Area) []quant.Area {
	if a.Values() == 0 {
		return nil
	}
	if columns == cut.Cols {
		return []quant.Area{cut.Cover(a)}
	}
	if a.Rows > 1 && cut.UnitCols >= columns { // so they are as well taken whole
		end := a.Index(a.Values()-1, columns) + 1
		a = quant.Area{Col: a.Index(0, columns), Rows: 1, Cols: end - a.Index(0, columns)}
	}
	var covers []quant.Area
	for i := range a.Rows {
		covers = append(covers, cut.Cover(runIn(cut, (a.Row+i)*columns+a.Col, a.Cols)))
	}
	return covers
}

// runIn is the area of whole rows, or of a part of one, that holds n values
// from start on.
func runIn(cut quant.Cut, start, n int) quant.Area {
	row, last := start/cut.Cols, (start+n-1)/cut.Cols
	if row == last {
		return quant.Area{Row: row, Col: start % cut.Cols, Rows: 1, Cols: n}
	}
	return quant.Area{Row: row, Rows: last - row + 1, Cols: cut.Cols}
}

// pick copies what of a run of a weight's values, which begins at start, lies
// in an area.
func pick(dst []float32, a quant.Area, columns, start int, run []float32) {
	end := start + len(run)
	for i := max(start/columns-a.Row, 0); i < a.Rows; i++ {
		at := (a.Row+i)*columns + a.Col
		if at >= end {
			return
		}
		if from, to := max(at, start), min(at+a.Cols, end); from < to {
			copy(dst[i*a.Cols+from-at:], run[from-start:to-start])
		}
	}
}
