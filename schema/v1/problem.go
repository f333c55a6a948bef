package v1

// Problem is something wrong between the parts of a manifest.
type Problem struct {
	// Field is the path of the field, "tasks[0].with.restartOn[1]".
	Field string
	// Message says what is wrong and what is allowed.
	Message string
}

// Problems are the errors of Resources one by one, for who rendered the
// manifest and knows where each task was written.
func (m NodeManifest) Problems() []Problem {
	var out []Problem
	for _, p := range m.problems() {
		out = append(out, Problem{Field: p.field, Message: p.message})
	}
	return out
}
