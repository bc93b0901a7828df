// Package rule says what the claims of a JWT give: claims in, a grant out, and why not. It is pure: it
// knows neither keys nor clocks.
//
// A rule names claims. Each has to be there and to fit, and the rules of an issuer are asked in their
// order: the first that fits gives what it gives, the others nothing. A value of a rule is
//
//   - a text, which fits the same text; a `*` in it stands for any run of characters but `/` and `:`,
//     so that "refs/heads/release-*" is no branch "release-1/x", and "repo:octo/*:*" no environment;
//   - a number or true or false, which fit as their text: project_id = 7 fits "7" and 7;
//   - a list, which fits what one of its elements fits;
//   - a table, for a claim that is an object: each of its keys has to be there and to fit.
//
// A claim that is a list fits if one of its elements does. A claim that is null is not there.
//
// Strangers share some issuers: everybody has a repository at GitHub. A rule for one of those binds a
// claim that says whose it is, by a text whose beginning, to the owner's end, has no `*`; see [Shared].
//
// A scope of a rule may leave its target to a claim: with ref = "refs/heads/test-*" the scope
// promote:web/{ref}:test lets the branch test-web-1 try web-1, and no other. The claim has one text with one
// *, and what that stands for has to be a name: no *, and nothing of more parts.
//
// A rule of machines has a scope follow:. It says which names they may have: those of the globs in
// Hosts, or the one in a claim of theirs. Shown as it is, a JWT that fits such a rule may do all but follow:
// only who proves to be a machine as well (by a join) follows, under a name that belongs to it.
package rule
