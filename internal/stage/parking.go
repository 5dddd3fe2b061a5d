package stage

import (
	"errors"
	"os"
	"slices"
	"sync"

	"github.com/tensorpress/tensorpress/internal/openfiles"
)

// parking bounds how many of an output's files are open. The first files, as many as
// apart says, are kept open by the stage itself, because systems can do more with an
// open file. Of the others, those that were written to last are open.
type parking struct {
	mu     sync.Mutex
	all    []*parked
	recent []*parked // open files, the latest use last
}

// apart returns how many files stay open all the time, outside of parking.
func (*parking) apart() int { return openfiles.Most() - parkedOpen() }

func parkedOpen() int { return max(openfiles.Most()/4, 1) }

// parked is a file that is closed between writes if too many are open.
type parked struct {
	parking *parking
	path    string
	file    *os.File // nil while it is not open
	users   int
}

// park takes over a file and closes it until it is written to.
func (p *parking) park(f *os.File) (*parked, error) {
	one := &parked{parking: p, path: f.Name()}
	p.all = append(p.all, one)
	return one, f.Close()
}

// WriteAt writes to the file as [os.File.WriteAt] does. It is safe for concurrent use.
func (f *parked) WriteAt(data []byte, off int64) (int, error) {
	file, err := f.parking.use(f)
	if err != nil {
		return 0, err
	}
	n, err := file.WriteAt(data, off)
	return n, errors.Join(err, f.parking.release(f))
}

// use opens a file and keeps it open until release.
func (p *parking) use(f *parked) (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.file == nil {
		file, err := os.OpenFile(f.path, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		f.file = file
	} else {
		p.recent = slices.DeleteFunc(p.recent, func(one *parked) bool { return one == f })
	}
	p.recent = append(p.recent, f)
	f.users++
	return f.file, nil
}

// release ends a use, and closes files while too many are open.
func (p *parking) release(f *parked) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.users--
	excess := len(p.recent) - parkedOpen()
	p.recent = slices.DeleteFunc(p.recent, func(one *parked) bool {
		if excess <= 0 || one.users > 0 {
			return false
		}
		excess--
		err = errors.Join(err, one.close())
		return true
	})
	return err
}

func (f *parked) close() error {
	file := f.file
	f.file = nil
	return file.Close()
}

// sync syncs to disk what was written, even if the file has been closed since.
func (f *parked) sync() error {
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

func (p *parking) close() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.recent {
		err = errors.Join(err, f.close())
	}
	p.recent = nil
	return err
}
