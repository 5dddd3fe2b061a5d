package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// fails is a file in memory that counts its reads, of which some fail.
type fails struct {
	data  []byte
	reads atomic.Int64
	every int64 // that fails, 0 for none
}

var errBroken = errors.New("broken")

func (f *fails) ReadAt(p []byte, off int64) (int, error) {
	if n := f.reads.Add(1); f.every > 0 && n%f.every == 0 {
		return 0, errBroken
	}
	return bytes.NewReader(f.data).ReadAt(p, off)
}

// TestBlocks: whoever reads whatever, at the same time as others and though reads fail
// at times, must get the bytes of the file, and the blocks that are kept be few.
func TestBlocks(t *testing.T) {
	all := newBlocks(func() (int, int) { return mostBlocks, 0 })
	one := &fails{data: make([]byte, 15*blockBytes+1234), every: 7}
	for i := range one.data {
		one.data[i] = byte(i * 7 >> 4)
	}
	f := &inBlocks{all, "x", one, int64(len(one.data)), ""}
	var readers sync.WaitGroup
	const most = 4
	for seed := range uint64(most) {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			for range 20 {
				off := r.IntN(len(one.data))
				p := make([]byte, min(r.IntN(2*blockBytes), len(one.data)-off))
				n, err := f.ReadAt(p, int64(off))
				if !bytes.Equal(p[:n], one.data[off:off+n]) || n < len(p) && !errors.Is(err, errBroken) {
					t.Errorf("read %d of %d bytes at %d, or others: %v", n, len(p), off, err)
				}
			}
		})
	}
	readers.Wait()
	if n := len(all.recent); n > mostBlocks+most {
		t.Errorf("%d blocks are kept", n)
	}

	before := one.reads.Load()
	one.every = 0
	for off := range 10 {
		if _, err := f.ReadAt(make([]byte, 100), int64(5*blockBytes+off*1000)); err != nil {
			t.Fatal(err)
		}
	}
	if n := one.reads.Load() - before; n > 1 {
		t.Errorf("one block was read %d times", n)
	}
	if n, err := f.ReadAt(make([]byte, 20), f.size-10); n != 10 || err != io.EOF {
		t.Errorf("past the end: %d, %v", n, err)
	}
	short := &inBlocks{all, "y", &fails{data: []byte("short")}, 10, ""}
	if _, err := short.ReadAt(make([]byte, 10), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file shorter than it says: %v", err)
	}
}

// TestListed: names in a store must be found as files and folders are.
func TestListed(t *testing.T) {
	fsys := fstest.MapFS{"a/b/x": {Data: []byte("1")}, "a/y": {Data: []byte("22")}, "ab": {Data: []byte("333")}}
	s := Of(context.Background(), files.At(files.FS(fsys), "a"))
	entries, err := s.ReadDir(s.Path)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if err != nil || !slices.Equal(names, []string{"b", "y"}) || !entries[0].IsDir() || entries[1].IsDir() {
		t.Errorf("%v, %v", names, err)
	}
	whole := Of(context.Background(), files.FS(fsys))
	if entries, err := whole.ReadDir(whole.Path); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
	for name, want := range map[string]int64{"b": -1, "y": 2, "b/x": 1, "c": -2, "../ab": -2} {
		info, err := s.Stat(s.Join(s.Path, name))
		switch {
		case want == -2 && !errors.Is(err, fs.ErrNotExist):
			t.Errorf("%s: %v, %v", name, info, err)
		case want == -1 && (err != nil || !info.IsDir()):
			t.Errorf("%s: %v, %v", name, info, err)
		case want >= 0 && (err != nil || info.Size() != want || !info.Mode().IsRegular()):
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if _, err := s.Open(s.Join(s.Path, "b")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened a folder: %v", err)
	}
	folder, name := s.Split(s.Join(s.Path, "y"))
	if folder != s.Path || name != "y" || s.In("") != s || s.In("b").Path != s.Join(s.Path, "b") {
		t.Errorf("split into %s and %s", folder, name)
	}
	if text, err := ReadFile(s.Tree, s.Join(s.Path, "y"), 10); err != nil || string(text) != "22" {
		t.Errorf("read %q, %v", text, err)
	}
	if _, err := ReadFile(s.Tree, s.Join(s.Path, "y"), 1); !errors.Is(err, usage.ErrSource) {
		t.Errorf("read more than was to be: %v", err)
	}
}

// sized is a store whose file has a size that somebody states.
type sized struct{ size int64 }

func (sized) String() string                                     { return "sized" }
func (sized) List(context.Context) ([]string, error)             { return []string{"x"}, nil }
func (s sized) Open(context.Context, string) (files.File, error) { return s, nil }
func (s sized) Size() int64                                      { return s.size }
func (sized) ReadAt([]byte, int64) (int, error)                  { return 0, io.EOF }

// TestNegativeSize: a store that states what no file has is refused, not believed.
func TestNegativeSize(t *testing.T) {
	s := Of(context.Background(), sized{-5})
	if _, err := s.Stat(s.Join(s.Path, "x")); !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), "sized/x: has a size of -5 bytes") {
		t.Errorf("%v", err)
	}
}

// TestUnchanged: a file that was written to, or is another one, is noticed.
func TestUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("1")
	onDisk, inFS := Path(path), Of(t.Context(), files.At(files.FS(os.DirFS(filepath.Dir(path))), "x"))
	seen := map[string]fs.FileInfo{}
	check := func(want bool) {
		t.Helper()
		for name, s := range map[string]Source{"disk": onDisk, "fs": inFS} {
			if seen[name] == nil {
				f, err := s.Open(s.Path)
				if err != nil {
					t.Fatal(err)
				}
				seen[name] = f.Info
				f.Close()
			}
			if same, err := s.Unchanged(s.Path, seen[name]); same != want || err != nil {
				t.Errorf("%s: unchanged %v, %v", name, same, err)
			}
		}
	}
	check(true)
	write("22")
	check(false)
	clear(seen)
	check(true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check(false)
}

// TestReadsAhead: a file that is read from front to back is asked for in several ranges
// at a time, each once, and what was read ahead in vain makes room again.
func TestReadsAhead(t *testing.T) {
	const n = 60
	one := &counted{size: n * blockBytes, reads: map[int64]int{}}
	const most, ahead = 8, 4
	all := newBlocks(func() (int, int) { return most, ahead })
	f := &inBlocks{all, "x", one, one.size, ""}
	small := make([]byte, 1000)
	for off := int64(0); off < one.size; off += blockBytes / 4 {
		if _, err := f.ReadAt(small, off); err != nil {
			t.Fatal(err)
		}
	}
	for i := range int64(n) {
		if got := one.reads[i*blockBytes]; got != 1 {
			t.Errorf("block %d was read %d times", i, got)
		}
	}
	if one.most < 2 {
		t.Errorf("at most %d at a time", one.most)
	}
	for i := range 20 { // jumps, of two blocks each
		for j := range 2 {
			if _, err := f.ReadAt(small, int64((i*7+j)%n)*blockBytes); err != nil {
				t.Fatal(err)
			}
		}
	}
	one.wait()
	if got := len(all.recent); got > most+ahead {
		t.Errorf("%d blocks are kept", got)
	}
}

// TestLetsGo: what is read to its end by several readers makes room for what follows, and
// a file that is gone through again is read once more, several ranges at a time.
func TestLetsGo(t *testing.T) {
	const n, most, ahead = 40, 32, 4
	one := &counted{size: n * blockBytes, reads: map[int64]int{}}
	all := newBlocks(func() (int, int) { return most, ahead })
	f := &inBlocks{all, "x", one, one.size, ""}
	for pass := 1; pass <= 2; pass++ {
		var readers sync.WaitGroup
		const readersAtOnce, piece = 3, blockBytes / 4
		pieces := make(chan int64)
		for range readersAtOnce {
			readers.Go(func() {
				p := make([]byte, piece)
				for off := range pieces {
					if _, err := f.ReadAt(p, off); err != nil {
						t.Error(err)
					}
					all.mu.Lock()
					if got := len(all.recent); got > ahead+readersAtOnce+keptBlocks+1 {
						t.Errorf("%d blocks are in memory", got)
					}
					all.mu.Unlock()
				}
			})
		}
		for off := int64(0); off < one.size; off += piece {
			pieces <- off
		}
		close(pieces)
		readers.Wait()
		for i := range int64(n) {
			if got := one.reads[i*blockBytes]; got != pass {
				t.Errorf("pass %d: block %d was read %d times", pass, i, got)
			}
		}
		if one.most < 2 {
			t.Errorf("at most %d at a time", one.most)
		}
		one.most = 0
	}
}

// TestSum: the sha256 of a file is that of its bytes in whatever order these are read, and
// what was read in order is not read again for it.
func TestSum(t *testing.T) {
	data := make([]byte, 21*blockBytes+777)
	rand.NewChaCha8([32]byte{1}).Read(data)
	want := sha256.Sum256(data)
	blocksOf := func(order ...int) (offs []int64) {
		for _, i := range order {
			offs = append(offs, int64(i)*blockBytes)
		}
		return offs
	}
	var inOrder, backwards, odd []int
	for i := range 22 {
		inOrder, backwards = append(inOrder, i), append(backwards, 21-i)
		odd = append(odd, (i*5)%22)
	}
	for _, tt := range []struct {
		name  string
		order []int64
		again int64 // how many blocks are read again for it, at most
	}{
		{"nothing", nil, 22}, {"before anyone asked", nil, 22}, {"in order", blocksOf(inOrder...), 0}, {"twice", blocksOf(append(inOrder, inOrder...)...), 0},
		{"half", blocksOf(inOrder[:11]...), 11}, {"backwards", blocksOf(backwards...), 22}, {"odd", blocksOf(odd...), 22},
		{"nearly in order", blocksOf(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14, 17, 16, 19, 18, 21, 20), 0},
	} {
		one := &fails{data: data}
		s := Of(t.Context(), stored{one, int64(len(data))})
		if tt.name == "before anyone asked" {
			if _, err := ReadFile(s.Tree, s.Join(s.Path, "x"), 10*blockBytes); err == nil {
				t.Error("read more than was to be")
			}
		}
		s.Tree.(Summing).SumAll()
		f, err := s.Open(s.Join(s.Path, "x"))
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, blockBytes)
		for _, off := range tt.order {
			if n, err := f.Sections.ReadAt(p, off); !bytes.Equal(p[:n], data[off:min(int(off)+blockBytes, len(data))]) {
				t.Errorf("%s: other bytes: %v", tt.name, err)
			}
		}
		before := one.reads.Load()
		got, info, err := s.Tree.(Summing).Sum(t.Context(), s.Join(s.Path, "x"))
		if err != nil || got != hex.EncodeToString(want[:]) || info.Size() != int64(len(data)) {
			t.Errorf("%s: %s, %v", tt.name, got, err)
		}
		if again := one.reads.Load() - before; again > tt.again {
			t.Errorf("%s: %d blocks were read again", tt.name, again)
		}
	}
}

// stored is a store of one file.
type stored struct {
	io.ReaderAt
	size int64
}

func (s stored) String() string                                   { return "store" }
func (s stored) List(context.Context) ([]string, error)           { return []string{"x"}, nil }
func (s stored) Open(context.Context, string) (files.File, error) { return s, nil }
func (s stored) Size() int64                                      { return s.size }
func (s stored) Blocks() (most, ahead int)                        { return 8, 3 }

// counted counts reads by where they begin.
type counted struct {
	size int64

	mu        sync.Mutex
	reads     map[int64]int
	now, most int
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	c.reads[off]++
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	time.Sleep(time.Millisecond)
	c.mu.Lock()
	c.now--
	c.mu.Unlock()
	return len(p), nil
}

func (c *counted) wait() {
	for range 1000 {
		c.mu.Lock()
		now := c.now
		c.mu.Unlock()
		if now == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestSumOfSmall: what was read before anyone asked for its sum has one, and so has an
// empty file.
func TestSumOfSmall(t *testing.T) {
	for _, text := range []string{"", "{}"} {
		s := Of(t.Context(), stored{&fails{data: []byte(text)}, int64(len(text))})
		at := s.Join(s.Path, "x")
		if got, err := ReadFile(s.Tree, at, 10); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
		s.Tree.(Summing).SumAll()
		want := sha256.Sum256([]byte(text))
		if got, _, err := s.Tree.(Summing).Sum(t.Context(), at); err != nil || got != hex.EncodeToString(want[:]) {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}
