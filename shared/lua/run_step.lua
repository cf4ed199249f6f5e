-- run_step: one fact about a run: guard, change its state, append the event. The only writer of runs.
-- include: append_entry
-- include: run_state
-- include: run_progress
-- include: run_tasks
-- include: run_end
-- include: run_accept
-- include: run_facts
-- include: run_lapse
-- KEYS  1 run hash  2 user stream  3 sources (zset)  4 latest (hash)
-- ARGV  1 channel  2 PUBLISH|SPUBLISH, '' for no events  3 maxlen  4 stream ttl ms
--       5 state ttl ms  6 lease ms
--       7 queue timeout ms  8 most deliveries  9 ts (ISO 8601)
--       10 prefix of run keys  11 run id  12 fact  13 number of its fields  then name, value, ...
--       then progress reports, eight values each:
--       stage, parts, done, total, unit, complete, weight, note ('' of one with no stage: its note alone)
-- Text that goes into events (head, stage, unit, note, error, result) arrives as JSON and is spliced.
-- Returns {verdict, status, due in ms or -1, cursor, ended, next in ms or -1, task ids, emitted}:
--   verdict  ok | closed | duplicate | stale | missing | running
--   due      when a progress event that was held back may go out
--   cursor   of 'accepted', the stream's last id from before the run
--   ended    '1' when this step ended the run
--   next     of 'lapsed': the run's earliest deadline
--   task ids of 'cancel': what is not done; of 'lapsed': what to ask the result backend for
--   emitted  what was appended: the ends of the events' types
--
-- Run hash: source head name status attempt percent stage done total unit note stages accepted_ms
--   started_ms updated_ms progress_ms dirty shown cursor seconds eta attempts reason error result worker
--   open alive           how many tasks are open, and have an execution at work
--   finals idle lease_ms how many finals are missing; since when nothing is open; the last lease
--   final:<id>           a task whose success the run waits for
--   task:<id>            nesting retries rank phase nonce executions twin late grace suspect deadline
--   error:<id>           what a suspected task fails with
--   forgotten            '1' of a run that Redis had lost, so that its finals are not known
--   planned sum:<stage> parts:<stage> finished:<stage> unit:<stage>   what its tasks have reported
--   part:<task>:<stage>  that task's share of the stage, in millionths
-- A task's key (nesting, retries, rank) only grows: nesting counts replacements by Task.replace,
-- rank is sent 0, retrying 1, started 2. A nonce names one execution and fences the others; a twin
-- began while another was at work, so that what is told without a nonce may be of either.
-- Guards, in order: the run is over (closed); the task is done (duplicate); the fact is another
-- execution's, or of an attempt that has been replaced (stale).

local function step()
  if FACT == 'accepted' then return accept() end
  local status = get('status')
  if status == '' then
    if FACT ~= 'started' and FACT ~= 'retrying' then return 'missing' end
    if open_run() then return 'closed' end -- forgotten, and there is a newer one
    create()
    if f.final == '*' then set('forgotten', '1') end
  elseif TERMINAL[status] then
    return 'closed'
  end
  if FACT == 'lapsed' then return lapse_all() end
  if FACT == 'flush' then
    due = show(false)
    return 'ok'
  end
  local task = load_task(f.task)
  if task.phase == 'done' then return 'duplicate' end
  return facts[FACT](task)
end

local function watch_for_idleness()
  local is_idle = num('open') == 0
  if is_idle ~= (num('idle') > 0) then set('idle', is_idle and int(now + IDLE_MS) or '0') end
end

local verdict = step()
local status = get('status')
if status ~= '' and not TERMINAL[status] then watch_for_idleness() end
save()
if ended == '1' then retire(KEY_RUN) end
return {verdict, status, due, cursor, ended, next_ms, names, emitted}
