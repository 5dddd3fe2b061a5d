package main

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/remote"
)

// places are the sources and destinations that a command line names.
type places struct {
	memory int64 // that they may take of the run's
	notes  io.Writer
	taken  bool // a source is far away, and takes that memory
}

// farGarbage is how much may pile up before it is collected, in percent of what is in
// memory: requests leave some behind, and what blocks of a far source take is large.
const farGarbage = 25

// placesOf are those of a command without a bound of memory.
func placesOf(notes io.Writer) *places { return &places{memory: defaultMemory / 4, notes: notes} }

// places are those of a run.
func (r *runFlags) places(notes io.Writer) *places {
	if r.quiet {
		notes = io.Discard
	}
	return &places{memory: r.memory.bytes / 4, notes: notes}
}

// source returns what a SOURCE names: a path, an address or, where there is no such path,
// a repository of the hub.
func (p *places) source(text string) (files.Source, error) {
	if address, ok := remote.OnHub(text); ok {
		fmt.Fprintf(p.notes, "tensorpress: note: no such path here: %s is read\n", address)
		text = address
	}
	s, ok, err := remote.Open(text, p.memory)
	if err != nil || ok {
		if ok {
			p.taken = true
			debug.SetGCPercent(farGarbage)
		}
		return s, err
	}
	return files.Dir(text), nil
}

// left is how much of that memory remains for the work.
func (p *places) left(memory int64) int64 {
	if !p.taken {
		return memory
	}
	return max(memory-p.memory, leastMemory)
}

// dest returns what a DEST names, once it is sure that this machine can write there.
func (p *places) dest(text string) (files.Sink, error) {
	s, err := p.keeper(text)
	if ready, ok := s.(interface{ Ready() error }); ok && err == nil {
		err = ready.Ready()
	}
	return s, err
}

// keeper returns what a DEST names that keeps what is finished, for whoever refuses one that
// does not.
func (p *places) keeper(text string) (files.Sink, error) {
	s, ok, err := remote.Dest(text)
	if err != nil || ok {
		return s, err
	}
	return files.Dir(text), nil
}

// both returns SOURCE and DEST.
func (p *places) both(source, dest string) (files.Source, files.Sink, error) {
	return p.apart(source, dest, p.dest)
}

// apart returns SOURCE and DEST, as another function names that.
func (p *places) apart(source, dest string, named func(text string) (files.Sink, error)) (files.Source, files.Sink, error) {
	from, err := p.source(source)
	if err != nil {
		return nil, nil, err
	}
	to, err := named(dest)
	if err == nil {
		err = remote.Apart(source, dest)
	}
	return from, to, err
}
