package checkpoint

import "slices"

// Turned returns a tensor of matrices of another, [matrices, rows, columns], of which
// rows and columns have changed places.
func Turned(name string, from *Tensor) Tensor {
	t := *from
	t.Name, t.Shape = name, slices.Clone(from.Shape)
	t.Shape[1], t.Shape[2] = t.Shape[2], t.Shape[1]
	t.Gathered = &Gathered{turned: from}
	return t
}

// readTurned is ReadSection of such a tensor: of each row that it fills, a column of the
// source is taken. Rows of one matrix are read together, so that a run of the source
// has as many values as there are of them.
func (c *Checkpoint) readTurned(t Tensor, dst []byte, off int64) error {
	from := t.Gathered.turned
	width := int64(t.Dtype.Bits() / 8)
	rows, columns := int64(t.Shape[1]), int64(t.Shape[2])
	for len(dst) > 0 {
		at := off / width
		row, col := at/columns, at%columns
		n, count := min(columns-col, int64(len(dst))/width), int64(1)
		if n == columns { // whole rows, to the end of the matrix
			count = min(int64(len(dst))/(columns*width), rows-row%rows)
		}
		if err := c.turn(from, dst, width, row/rows, row%rows, count, col, n); err != nil {
			return err
		}
		dst, off = dst[n*count*width:], off+n*count*width
	}
	return nil
}

// turn fills count rows from row on, each with n values from column col on, of a matrix:
// columns of the source from row on, in n rows from col on.
func (c *Checkpoint) turn(from *Tensor, dst []byte, width, matrix, row, count, col, n int64) error {
	across, down := int64(from.Shape[2])*width, int64(from.Shape[1])
	first := matrix*down*across + col*across + row*width
	size := count * width
	each := int64(1) // rows of the source that are read at once
	if across-size <= apart && size+across <= together {
		each = (together - size) / across
	}
	buffer := spare.Get().(*[together]byte)
	defer spare.Put(buffer)
	for i := int64(0); i < n; i += each {
		each = min(each, n-i)
		for part := int64(0); part < size; part += together { // rows longer than the buffer are taken apart
			length := min(size-part, together)
			run := buffer[:(each-1)*across+length]
			if err := c.ReadSection(*from, run, first+i*across+part); err != nil {
				return err
			}
			for k := range each {
				values, to := run[k*across:k*across+length], (i+k)*width+part*n
				for ; len(values) > 0; values, to = values[width:], to+n*width {
					copy(dst[to:to+width], values)
				}
			}
		}
	}
	return nil
}
