// Package desired is what the server's desired document means for this host.
//
// All of it is decisions, and pure: each depends on the host's own rules, the
// journal and the host's facts, and changes nothing. Judge says whether a release
// is to be taken. Admit says what a staged system waits for, AdmitReboot what an
// armed host does. OrderOf says what a directive comes to.
//
// The server's word can delay and hold. It permits a reboot where the host's
// configuration leaves that to it, and asks for a retry, or for the way back to
// what the host itself has found well. It cannot make a host run what no
// promoter signed.
package desired
