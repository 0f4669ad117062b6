/* Actors: the processes of the demonstration.
 *
 * The director starts each with a uid of its own and talks to it over a socket pair: a *cue* is
 * one byte that says what to do next, a *report* says what happened. An actor ends when its function
 * returns, when it is killed, and in any case when the director is gone. Nothing waits longer
 * than ACTOR_PATIENCE_MS, and an interrupted director stops waiting at once.
 */
#ifndef DEMO_ACTOR_H
#define DEMO_ACTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define ACTOR_PATIENCE_MS 120000

typedef struct Report {
        bool ok;
        bool last;              /* of a series */
        uint64_t value[4];
        char text[232];
} Report;

typedef struct Actor {
        pid_t pid;
        int control;
} Actor;

#define ACTOR_NULL { .pid = -1, .control = -1 }

typedef void (*ActorFn)(int control, void *userdata);

/* Set by the director's signal handler: every wait ends. */
extern volatile int actor_interrupted;

/* Starts an actor. With uid (uid_t)-1 it keeps the director's. Return: false if it could not. */
bool actor_start(Actor *actor, uid_t uid, gid_t gid, ActorFn fn, void *userdata);

/* Tells the actor what to do next: a letter the two agree on. */
void actor_cue(Actor *actor, char cue);

/* Waits for its next report. Return: false, with a text that says so, if none comes. */
bool actor_hear(Actor *actor, Report *report);

/* True if the actor has said nothing that was not heard. */
bool actor_is_silent(const Actor *actor);

/* Kills the actor and waits until the kernel has taken it apart. Harmless on one that ended. */
void actor_kill(Actor *actor);

/* Lets the actor end when it next waits for a cue, and waits for that. Return: true if it ended
 * by itself, without an error. */
bool actor_end(Actor *actor);

/* For actors: waits for a cue; ends the process if there will be none. */
char actor_await(int control);

/* For actors: says what happened. */
void actor_report(int control, const Report *report);

#endif
