package convert

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strconv"

	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// fingerprint tells a source from others. It covers, of every model, the name, dtype,
// shape, file and place of every tensor, the metadata of the header, and samples of the
// values of some tensors: enough to tell a model from one that was trained further. It
// does not cover every value.
func (j *job) fingerprint() (string, error) {
	h := sha256.New()
	for _, one := range j.Models {
		if err := addModel(h, one); err != nil {
			return "", err
		}
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// mergedFingerprint is the fingerprint of a source with the adapters that are merged into
// it, that of the source where none are.
func (j *job) mergedFingerprint() (string, error) {
	plain, err := j.fingerprint()
	if err != nil || len(j.asked.Lora) == 0 {
		return plain, err
	}
	h := sha256.New()
	fmt.Fprintln(h, plain)
	for _, a := range j.adapters.Adapters() {
		if err := addModel(h, &bundle.Model{Folder: fmt.Sprintf("lora %g", a.Strength), Checkpoint: a.Checkpoint}); err != nil {
			return "", err
		}
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

const (
	mostSamples = 256 // tensors of a model
	sampleBytes = 256 // of each, from its middle
)

// addHeader covers what the headers of a model say.
func addHeader(h hash.Hash, one *bundle.Model) {
	c := one.Checkpoint
	fmt.Fprintf(h, "model %q, %d files\n", one.Folder, len(c.Shards))
	for _, key := range slices.Sorted(maps.Keys(c.Metadata)) {
		fmt.Fprintf(h, "%q: %q\n", key, c.Metadata[key])
	}
	var line []byte // there are many
	for i := range c.Tensors {
		line = appendTensor(line[:0], &c.Tensors[i])
		h.Write(line)
	}
}

// appendTensor is what fmt makes of "%q %s %v %d %d %d\n".
func appendTensor(line []byte, t *checkpoint.Tensor) []byte {
	line = append(strconv.AppendQuote(line, t.Name), ' ')
	line = append(append(line, t.Dtype.String()...), " ["...)
	for i, n := range t.Shape {
		if i > 0 {
			line = append(line, ' ')
		}
		line = strconv.AppendInt(line, int64(n), 10)
	}
	line = append(line, ']')
	for _, n := range []int64{int64(t.Shard), t.Offset, t.Size} {
		line = strconv.AppendInt(append(line, ' '), n, 10)
	}
	return append(line, '\n')
}

func addModel(h hash.Hash, one *bundle.Model) error {
	addHeader(h, one)
	c := one.Checkpoint
	some := min(mostSamples, len(c.Tensors))
	for i := range some {
		t := c.Tensors[i*len(c.Tensors)/some]
		sample := make([]byte, min(sampleBytes, t.Size))
		if err := c.ReadSection(t, sample, (t.Size-int64(len(sample)))/2); err != nil {
			return err
		}
		h.Write(sample)
	}
	return nil
}

// checkFingerprint refuses a source other than the one that a choice was made for.
func (j *job) checkFingerprint(want string) error {
	if want == "" {
		return nil
	}
	got, err := j.fingerprint()
	if err == nil && got != want {
		err = usage.SourceErrorf("%s is not the source for which the recipe was made: its fingerprint is %s, not %s; without the lock in it, the recipe's rules are taken for any source", j.Source.Path, short(got), short(want))
	}
	return err
}

// short is as much of a fingerprint as a message needs.
func short(fingerprint string) string {
	if most := len("sha256:") + 12; len(fingerprint) > most {
		return fingerprint[:most] + "…"
	}
	return fingerprint
}
