package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// source makes a checkpoint, once, and returns its path:
//
//	""            the checkpoint of -size
//	1GiB          another size
//	tiny, large   100,000 weights of 20 KiB, 400 of as many bytes in all
//	many          10,000 tensors without bodies
//	shards        1,000 shards of 20 tensors
//	wide, tall    a layer of 3072 × 12288, of 28672 × 8192
//	side512       square layers of that many columns, 64 MiB of them
func (b *bench) source(kind string) (string, error) {
	if path, ok := b.sources[kind]; ok {
		return path, nil
	}
	path := filepath.Join(b.dir, "source-"+kind+".safetensors")
	if err := b.makeElsewhere(path, kind); err != nil {
		return "", fmt.Errorf("make a checkpoint: %w", err)
	}
	b.sources[kind] = path
	return path, nil
}

// makeElsewhere makes a checkpoint in a process of its own: the system counts
// the greatest memory that this one ever had as that of every program it starts.
func (b *bench) makeElsewhere(path, kind string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-make", kind+"="+path, "-size", fmt.Sprintf("%dMiB", b.size>>20))
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

func makeSource(path, kind string, size int64) error {
	switch kind {
	case "":
		return writeFile(path, transformer(size), false)
	case "tiny":
		return writeFile(path, layers(100_000, 80, 128), false)
	case "large":
		return writeFile(path, layers(400, 1600, 1600), false)
	case "many":
		return writeFile(path, layers(10_000, 3072, 3072), true)
	case "shards":
		return writeShards(path, 1000)
	case "wide":
		return writeFile(path, layers(1, 3072, 12288), false)
	case "tall":
		return writeFile(path, layers(1, 28672, 8192), false)
	}
	var side int
	if n, _ := fmt.Sscanf(kind, "side%d", &side); n == 1 {
		return writeFile(path, layers((32<<20)/(side*side), side, side), false)
	}
	size, err := parseSize(kind)
	if err != nil {
		return err
	}
	return writeFile(path, transformer(size), false)
}

// drop removes a checkpoint that no other row of a section needs.
func (b *bench) drop(kind string) {
	os.RemoveAll(b.sources[kind])
	delete(b.sources, kind)
}
