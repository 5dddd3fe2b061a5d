package checkpoint

import (
	"fmt"
	"sync"

	"github.com/tensorpress/tensorpress/safetensors"
)

// Gathered is where the bytes of a tensor come from that lies in no shard as it is.
type Gathered struct {
	// Pieces are its bytes; what none of them has is zeros.
	Pieces []Piece
	turned *Tensor // see [Turned]; then there are no pieces
}

// EachShard calls do with every shard that has bytes of a tensor.
func (t *Tensor) EachShard(do func(shard int)) {
	g := t.Gathered
	switch {
	case g == nil:
		do(t.Shard)
		return
	case g.turned != nil:
		g.turned.EachShard(do)
	}
	for i := range g.Pieces {
		if from := g.Pieces[i].From; from != nil {
			from.EachShard(do)
		}
	}
}

// Piece is Count runs of Size bytes of a gathered tensor and where they are taken
// from.
type Piece struct {
	// To is where the first run goes, and Stride how far apart they are.
	To, Size, Stride int64
	Count            int
	// From is the tensor that has them, Offset where the first begins, and Step how far
	// apart they are there, 0 where all are the same.
	From         *Tensor
	Offset, Step int64
	// Data has them where From is nil.
	Data []byte
}

// add takes a run, if the piece can go on with it.
func (p *Piece) add(to, size, from int64) bool {
	switch {
	case size != p.Size:
		return false
	case p.Count == 1:
		if from < p.Offset {
			return false
		}
		p.Stride, p.Step = to-p.To, from-p.Offset
	case to != p.To+int64(p.Count)*p.Stride || from != p.Offset+int64(p.Count)*p.Step:
		return false
	}
	p.Count++
	return true
}

// Add says where a run of bytes comes from. Runs that lie regularly are one piece.
func (g *Gathered) Add(to, size int64, from *Tensor, offset int64) {
	const open = 4 // pieces that may go on: one for each source
	n := len(g.Pieces)
	if n > 0 { // a run that continues the last
		if p := &g.Pieces[n-1]; p.Count == 1 && p.From == from && p.To+p.Size == to && p.Offset+p.Size == offset {
			p.Size += size
			return
		}
	}
	for i := n - 1; i >= max(n-open, 0); i-- {
		if p := &g.Pieces[i]; p.From == from && p.add(to, size, offset) {
			return
		}
	}
	g.Pieces = append(g.Pieces, Piece{To: to, Size: size, Count: 1, From: from, Offset: offset})
}

// Gather returns a tensor of bytes of others, which counts as lying where the first of
// them does.
func Gather(name string, dtype safetensors.Dtype, shape []int, g *Gathered) (Tensor, error) {
	size, err := safetensors.ByteSize(dtype, shape)
	if err != nil {
		return Tensor{}, fmt.Errorf("tensor %.200q: %w", name, err)
	}
	t := Tensor{Tensor: safetensors.Tensor{Name: name, Dtype: dtype, Shape: shape, Size: size}, Gathered: g}
	for _, p := range g.Pieces {
		if p.From != nil {
			t.Shard, t.Offset = p.From.Shard, p.From.Offset
			break
		}
	}
	return t, nil
}

// readGathered is ReadSection of such a tensor.
func (c *Checkpoint) readGathered(t Tensor, dst []byte, off int64) error {
	end := off + int64(len(dst))
	if off < 0 || end > t.Size {
		return fmt.Errorf("tensor %.200q: bytes %d to %d of %d: %w", t.Name, off, end, t.Size, safetensors.ErrRange)
	}
	if t.Gathered.turned != nil {
		return c.readTurned(t, dst, off)
	}
	filled := int64(0)
	for i := range t.Gathered.Pieces {
		filled += t.Gathered.Pieces[i].within(off, end)
	}
	if filled < end-off {
		clear(dst)
	}
	for i := range t.Gathered.Pieces {
		if err := c.readPiece(&t.Gathered.Pieces[i], dst, off); err != nil {
			return err
		}
	}
	return nil
}

// runs are those that overlap the bytes [off, end).
func (p *Piece) runs(off, end int64) (first, last int) {
	if p.Count == 1 {
		if p.To < end && p.To+p.Size > off {
			return 0, 1
		}
		return 0, 0
	}
	first = int(max(off-p.To-p.Size+p.Stride, 0) / p.Stride)
	last = int(max(end-p.To+p.Stride-1, 0) / p.Stride)
	return first, max(min(last, p.Count), first)
}

// overlap is what a run has of the bytes [off, end).
func (p *Piece) overlap(run int, off, end int64) (from, to int64) {
	at := p.To + int64(run)*p.Stride
	return max(at, off), min(at+p.Size, end)
}

// within counts the bytes of [off, end) that the piece has.
func (p *Piece) within(off, end int64) (n int64) {
	first, last := p.runs(off, end)
	if first >= last {
		return 0
	}
	n = int64(last-first) * p.Size
	from, to := p.overlap(first, off, end)
	n -= p.Size - (to - from)
	if last-1 > first {
		from, to = p.overlap(last-1, off, end)
		n -= p.Size - (to - from)
	}
	return n
}

// spare are buffers for runs that are read together.
var spare = sync.Pool{New: func() any { return new([together]byte) }}

const (
	together = 128 << 10
	// apart is up to how many bytes between runs are read with them: a call for each
	// run takes longer.
	apart = 4096
)

// readPiece fills what a piece has of dst, which begins off bytes into the tensor.
func (c *Checkpoint) readPiece(p *Piece, dst []byte, off int64) error {
	end := off + int64(len(dst))
	first, last := p.runs(off, end)
	for first < last {
		n := 1
		if p.From != nil && p.Size+p.Step <= together && p.Step-p.Size <= apart {
			n = p.many(last - first)
		}
		if n == 1 {
			from, to := p.overlap(first, off, end)
			if err := p.read(c, dst[from-off:to-off], int64(first)*p.Step+from-p.To-int64(first)*p.Stride); err != nil {
				return err
			}
		} else if err := c.readRuns(p, first, n, dst, off); err != nil {
			return err
		}
		first += n
	}
	return nil
}

// many is how many of n runs are read together.
func (p *Piece) many(n int) int {
	if p.Step == 0 {
		return n
	}
	return min(n, int((together-p.Size)/p.Step)+1)
}

// readRuns fills what n runs have of dst, which are read as one.
func (c *Checkpoint) readRuns(p *Piece, first, n int, dst []byte, off int64) error {
	buffer := spare.Get().(*[together]byte)
	defer spare.Put(buffer)
	data := buffer[:int64(n-1)*p.Step+p.Size]
	if err := p.read(c, data, int64(first)*p.Step); err != nil {
		return err
	}
	end := off + int64(len(dst))
	for i := range n {
		from, to := p.overlap(first+i, off, end)
		at := int64(i)*p.Step + from - p.To - int64(first+i)*p.Stride
		copy(dst[from-off:to-off], data[at:])
	}
	return nil
}

// read fills dst from what lies so far behind the beginning of the first run.
func (p *Piece) read(c *Checkpoint, dst []byte, behind int64) error {
	if p.From == nil {
		copy(dst, p.Data[p.Offset+behind:])
		return nil
	}
	return c.ReadSection(*p.From, dst, p.Offset+behind)
}
