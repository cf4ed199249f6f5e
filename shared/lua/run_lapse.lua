-- run_lapse: deadlines that passed. A mode says what to do where nothing can come again:
--   show   tell the user that nothing is heard
--   ask    name the tasks, so that the result backend is asked what became of them
--   fail   end the run

local next_ms = -1
local REASONS = {unheard = 'worker_lost', worker_lost = 'worker_lost', interrupted = 'interrupted'}

local function give_up(task)
  local error = get('error:' .. task.id)
  if is_spent(task) and task.executions > 1 then
    fail_with('poison', 'This source made its worker crash again and again.')
  elseif error ~= '' then
    fail(error)
  elseif is_handed_over(task) then
    fail_with('chain_broken', 'A later step of this source never ran. Please try again.', true)
  elseif task.rank == 2 then
    fail_with('worker_lost', 'Processing stopped unexpectedly. Please try again.', true)
  else
    fail_with('never_started', 'This source waited too long and was not processed.', true)
  end
end

local function lapse(task)
  if f.mode == 'ask' then
    names[#names + 1] = task.id
  elseif is_alive(task) and task.late == 1 and not is_spent(task) then
    suspect(task, 'worker_lost', task.grace, 'unheard')
  elseif f.mode == 'fail' then
    give_up(task)
  elseif is_alive(task) and num('lease_ms') <= now then -- nor is anything heard of the others
    stall('worker_lost')
  end
end

local function lapse_idle() -- nothing is on the way, but something is missing
  if f.mode ~= 'show' and num('finals') == 0 then -- of a forgotten run: none is known to be missing
    close('completed', '')
  elseif f.mode == 'fail' then
    fail_with('chain_broken', 'A later step of this source never ran. Please try again.', true)
  elseif f.mode == 'ask' then
    save()
    for _, field in ipairs(redis.call('HKEYS', KEY_RUN)) do
      names[#names + 1] = string.match(field, '^final:(.+)$')
    end
  end
end

local function look_again(ms)
  if next_ms < 0 or ms < next_ms then next_ms = ms end
end

-- What waits is not given up while others of its run are at work, or were a moment ago.
local function is_held_up(task)
  return (task.rank < 2 or is_handed_over(task)) and task.suspect == '-'
    and (num('alive') > 0 or num('lease_ms') > now)
end

local function lapse_all()
  local waiting, suspicion = false, nil
  each_task(function(task)
    if task.phase ~= 'open' or ended ~= '' then return end
    local is_due, held_up = task.deadline <= now, is_held_up(task)
    if is_due and not held_up then lapse(task) end
    look_again(is_due and held_up and now + LEASE_MS or task.deadline)
    waiting = waiting or (task.rank < 2 and task.suspect == '-')
    if task.deadline - now > SETTLE_MS then suspicion = REASONS[task.suspect] or suspicion end
  end)
  if ended == '' and suspicion and not waiting then -- unseen while others were at work
    if num('alive') == 0 then stall(suspicion) else look_again(now + LEASE_MS) end
  end
  local idle = num('idle')
  if ended == '' and idle > 0 then
    if idle <= now then lapse_idle() end
    look_again(idle)
  end
  return 'ok'
end
