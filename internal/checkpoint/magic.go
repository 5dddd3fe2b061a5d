package checkpoint

import (
	"regexp"
	"strings"

	"github.com/tensorpress/tensorpress/internal/source"
)

// magic is the beginning of a file of another format.
type magic struct {
	at    int
	begin string // a regular expression, one character per byte
	what  string
}

const (
	startOver = "start from the safetensors checkpoint it was made of"
	convert   = "convert it to safetensors first"
	unpack    = "unpack it first"
	again     = "download it again"
)

// magics are the other formats that people save under a .safetensors name.
var magics = []magic{
	{0, `GGUF`, "a GGUF file: " + startOver},
	{0, `(lmgg|ggml|tjgg|fmgg|algg)`, "a GGML file: " + startOver},
	{0, `PK(\x03\x04|\x05\x06)`, "a zip archive, as PyTorch writes its checkpoints (.pt, .ckpt, .bin): loading one can run code: " + convert},
	{0, `\x80[\x02-\x05][\x00-\x9f]`, "a pickle, as older PyTorch writes its checkpoints: loading one can run code: " + convert},
	{0, `version https://git-lfs\.github\.com/spec/`, "the pointer that git has in place of a large file: git lfs pull brings the file itself"},
	{0, `(?i)\s*<(!doctype|html|head|\?xml|!--)`, "a web page and not the file: " + again + ", perhaps logged in"},
	{0, `\s*[{\[]\s*["{\]}]`, "a JSON text, perhaps a server's error in place of the file: " + again},
	{0, `(Invalid|Access|Entry not|Not Found|Unauthorized|Forbidden|Repository not)`, "a server's error in place of the file: " + again},
	{0, `\x1f\x8b`, "compressed with gzip: " + unpack},
	{0, `BZh[1-9]`, "compressed with bzip2: " + unpack},
	{0, `\xfd7zXZ\x00`, "compressed with xz: " + unpack},
	{0, `\x28\xb5\x2f\xfd`, "compressed with zstd: " + unpack},
	{0, `\x04\x22\x4d\x18`, "compressed with lz4: " + unpack},
	{0, `7z\xbc\xaf\x27\x1c`, "a 7z archive: " + unpack},
	{0, `Rar!\x1a\x07`, "a RAR archive: " + unpack},
	{257, `ustar`, "a tar archive: " + unpack},
	{0, `\x89HDF\r\n\x1a\n`, "an HDF5 file, as Keras writes: " + convert},
	{0, `\x93NUMPY`, "a NumPy array: " + convert},
	{4, `TFL3`, "a TensorFlow Lite model: " + startOver},
	{0, `(\x89PNG|\xff\xd8\xff|RIFF|GIF8)`, "an image"},
	{0, `%PDF-`, "a PDF"},
	{0, `\x08[\x01-\x10](\x12|\x22|\x3a)`, "an ONNX model: " + startOver},
	{0, `([\x81-\x8f]|\xde..)[\xa1-\xbf\xd9]`, "a msgpack file, as Flax writes its weights: " + convert},
	{0, `\x00{16}`, "nothing but zeros at its beginning: a download that was not finished: " + again},
}

// patterns are the compiled magics. They match text in which each character stands for
// one byte, see latin1.
var patterns = compileMagics()

func compileMagics() (all []*regexp.Regexp) {
	for _, m := range magics {
		all = append(all, regexp.MustCompile(`^(?s:`+m.begin+`)`))
	}
	return all
}

// ours matches the beginning of a safetensors file: a length whose upper four bytes are
// zero, then JSON.
var ours = regexp.MustCompile(`^(?s:....\x00{4}\{)`)

// foreignContent names the format of a file that is not safetensors. It returns "" if
// the file begins as a safetensors file or as none that is known.
func foreignContent(t source.Tree, path string) string {
	begin, err := source.Begin(t, path, 512)
	switch {
	case err != nil:
		return ""
	case len(begin) == 0:
		return "empty: " + again
	}
	text := latin1(begin)
	if ours.MatchString(text) { // a safetensors file, perhaps damaged
		return ""
	}
	for i, m := range magics {
		if rest := text[min(offset(text, m.at), len(text)):]; patterns[i].MatchString(rest) {
			return m.what
		}
	}
	return ""
}

// latin1 turns bytes into text with one character per byte.
func latin1(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return s.String()
}

// offset returns the byte at which character number n of text begins.
func offset(text string, n int) int {
	for i := range text {
		if n == 0 {
			return i
		}
		n--
	}
	return len(text)
}
